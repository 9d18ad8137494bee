"""Random requests put to real etcd and to Quorate: every answer and every error is the same.

`SAME_ANSWERS_SEEDS=200` tries more; a failure names its seed, and `SAME_ANSWERS_SEED=n` tries that one alone.
"""

from random import Random
from typing import Any, Final

import grpc
import pytest

from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.errors import Code
from tests.conformance.auth_requests import AuthRequests
from tests.conformance.beside import SEEDS, TTL_SLACK_S, clear, revision_of
from tests.conformance.requests import Request, Requests
from tests.support.rpc import Caller, refusal

REQUESTS: Final = 150
WATCHES: Final = 6
END: Final = b"zz"  # behind every other key but the last
STRICTER: Final = ("KV/Compact", "Auth/AuthStatus", "Lease/")  # we as 3.6 ask for rights where 3.5.1 does not
FOUNDATION: Final[tuple[Request, ...]] = (
    ("Auth/RoleAdd", rpc.AuthRoleAddRequest(name="root")),
    ("Auth/RoleAdd", rpc.AuthRoleAddRequest(name="r1")),
    ("Auth/UserAdd", rpc.AuthUserAddRequest(name="root", password="pw")),
    ("Auth/UserAdd", rpc.AuthUserAddRequest(name="ann", password="pw")),
    ("Auth/UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root")),
    ("Auth/UserGrantRole", rpc.AuthUserGrantRoleRequest(user="ann", role="r1")),
    ("Auth/AuthEnable", rpc.AuthEnableRequest()),
)
# Of several operations that cannot be done 3.5 names the first put, and 3.6 as we the first operation.
CHECKED: Final = [
    (Code(error.code).name, error.text)
    for error in (errors.KEY_NOT_FOUND, errors.LEASE_NOT_FOUND, errors.FUTURE_REV, errors.COMPACTED)
]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_answer_is_etcds(both: tuple[Caller, Caller], seed: int) -> None:
    rng = Random(seed)
    requests = Requests(rng, revision_of(both[0]))
    for caller in both:
        clear(caller)
    history = []
    for _ in range(REQUESTS):
        name, request = requests.next()
        history.append(f"{name} {request!s}".replace("\n", " "))
        theirs, ours = (answer(caller, name, request) for caller in both)
        if not (name == "KV/Txn" and theirs in CHECKED and ours in CHECKED):
            assert theirs == ours, "\n".join([f"seed {seed}", *history[-12:], f"etcd: {theirs}", f"quorate: {ours}"])
        requests.revision = revision_of(both[0])
        if name == "KV/Put" and not isinstance(ours, tuple):
            requests.put_revisions.append(requests.revision)
    creates = [requests.watch() for _ in range(WATCHES)]
    theirs_seen, ours_seen = (watched(caller, creates) for caller in both)
    for create, theirs, ours in zip(creates, theirs_seen, ours_seen, strict=True):
        assert theirs == ours, f"seed {seed}: {create}"
    both[0].unary("KV/Put", rpc.PutRequest(key=END))  # with no key left etcd hashes what compaction is to drop
    both[1].unary("KV/Put", rpc.PutRequest(key=END))
    hashes = [caller.unary("Maintenance/HashKV", rpc.HashKVRequest(revision=0)) for caller in both]
    assert hashes[0].hash == hashes[1].hash, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_right_is_etcds(both: tuple[Caller, Caller], seed: int) -> None:
    rng = Random(seed)
    users = AuthRequests(rng)
    keys = Requests(rng, revision_of(both[0]), depth_max=0)  # 3.5.1 does not look inside
    history = []
    try:
        for number in range(REQUESTS):
            if number % 30 == 5:  # there is something to judge
                for name, request in FOUNDATION:
                    for caller in both:
                        answer(caller, name, request)
            who = rng.choice(("root", "root", "ann", "bob", ""))
            password = rng.choice(("pw", "pw", "pw", "other"))
            name, request = keys.next() if rng.random() < 0.5 else users.next()
            if name.startswith(STRICTER):
                continue
            history.append(f"{who} {password}: {name} {request!s}".replace("\n", " "))
            theirs, ours = (answer_to(caller, who, password, name, request) for caller in both)
            if not (name == "KV/Txn" and theirs[1] in CHECKED and ours[1] in CHECKED):
                said = [f"seed {seed}", *history[-30:], f"etcd: {theirs}", f"quorate: {ours}"]
                assert theirs == ours, "\n".join(said)
    finally:
        for caller in both:
            disable(caller)


def answer_to(caller: Caller, who: str, password: str, name: str, request: Any) -> tuple[Any, Any]:
    """What a user is told who logs in and then asks; nobody asks without a token."""
    said = None
    if who:
        login = rpc.AuthenticateRequest(name=who, password=password)
        try:
            caller.metadata = (("token", caller.unary("Auth/Authenticate", login).token),)
        except grpc.RpcError as error:
            said = refusal(error)
    try:
        return said, answer(caller, name, request)
    finally:
        caller.metadata = ()


def disable(caller: Caller) -> None:
    """Auth off, and neither users nor roles."""
    answer_to(caller, "root", "pw", "Auth/AuthDisable", rpc.AuthDisableRequest())
    for user in caller.unary("Auth/UserList", rpc.AuthUserListRequest()).users:
        caller.unary("Auth/UserDelete", rpc.AuthUserDeleteRequest(name=user))
    for role in caller.unary("Auth/RoleList", rpc.AuthRoleListRequest()).roles:
        caller.unary("Auth/RoleDelete", rpc.AuthRoleDeleteRequest(role=role))


def answer(caller: Caller, name: str, request: Any) -> Any:
    """What can be compared: code and text of an error, or the answer without what differs between clusters."""
    try:
        response = caller.unary(name, request)
    except grpc.RpcError as error:
        return refusal(error)
    strip(response)
    if isinstance(response, rpc.LeaseTimeToLiveResponse) and response.TTL > 0:
        response.TTL = (response.TTL + TTL_SLACK_S) // 1000
        response.keys.sort()
    if isinstance(response, rpc.LeaseLeasesResponse):
        response.leases.sort(key=lambda lease: lease.ID)
    return str(response)


def strip(response: Any) -> None:
    """Empty what names a cluster, here and in the answers inside."""
    if response.HasField("header"):
        header = response.header
        header.cluster_id = header.member_id = header.raft_term = 0
    for inner in getattr(response, "responses", ()):
        strip(getattr(inner, inner.WhichOneof("response")))


def watched(caller: Caller, creates: list[rpc.WatchCreateRequest]) -> list[list[str]]:
    """For each watch what it is told until the key at the end is put and deleted."""
    caller.unary("KV/Put", rpc.PutRequest(key=END, value=b"end"))
    last = caller.unary("KV/DeleteRange", rpc.DeleteRangeRequest(key=END)).header.revision
    seen = []
    for create in creates:
        stream = caller.stream("Watch/Watch", [rpc.WatchRequest(create_request=create)], timeout_s=20)
        end = last - 1 if rpc.WatchCreateRequest.NODELETE in create.filters else last
        told: list[str] = []
        try:
            for response in stream:
                strip(response)
                if response.canceled or response.created:
                    told.append(str(response))
                told += [str(event) for event in response.events]
                if response.canceled or any(event.kv.mod_revision == end for event in response.events):
                    break
        finally:
            stream.cancel()
        seen.append(told)
    return seen
