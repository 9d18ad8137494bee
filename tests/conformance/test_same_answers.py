"""Random requests put to real etcd and to Quorate: every answer and every error is the same.

`SAME_ANSWERS_SEEDS=200` tries more; a failure names its seed, and `SAME_ANSWERS_SEED=n` tries that one alone.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any, Final

import grpc
import pytest

from bench import servers
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.errors import Code
from tests.conformance.requests import Requests
from tests.support.cluster import product_cluster
from tests.support.rpc import Caller, calling, refusal

SEEDS: Final = int(os.environ.get("SAME_ANSWERS_SEEDS", "12"))
ALONE: Final = os.environ.get("SAME_ANSWERS_SEED")
REQUESTS: Final = 150
WATCHES: Final = 6
END: Final = b"zz"  # behind every other key but the last
TTL_SLACK_S: Final = 20
# Of several operations that cannot be done 3.5 names the first put, and 3.6 as we the first operation.
CHECKED: Final = [
    (Code(error.code).name, error.text)
    for error in (errors.KEY_NOT_FOUND, errors.LEASE_NOT_FOUND, errors.FUTURE_REV, errors.COMPACTED)
]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Caller, Caller]]:
    """Callers of an etcd and of a Quorate, both new."""
    try:
        etcd = servers.etcd()
    except servers.NotInstalledError as reason:
        pytest.skip(str(reason))
    with ExitStack() as stack:
        callers = []
        for product in (etcd, servers.quorate()):
            cluster = stack.enter_context(product_cluster(product, 1))
            callers.append(stack.enter_context(calling(cluster.nodes[0].endpoint)))
        yield callers[0], callers[1]


@pytest.mark.parametrize("seed", [int(ALONE)] if ALONE else range(SEEDS))
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


def revision_of(caller: Caller) -> int:
    return int(caller.unary("KV/Range", rpc.RangeRequest(key=b"\0")).header.revision)


def clear(caller: Caller) -> None:
    """Neither keys nor leases; the revision goes on."""
    caller.unary("KV/DeleteRange", rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    for lease in caller.unary("Lease/LeaseLeases", rpc.LeaseLeasesRequest()).leases:
        caller.unary("Lease/LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease.ID))


def answer(caller: Caller, name: str, request: Any) -> Any:
    """What can be compared: code and text of an error, or the answer without what differs between clusters."""
    try:
        response = caller.unary(name, request)
    except grpc.RpcError as error:
        return refusal(error)
    strip(response)
    if isinstance(response, rpc.LeaseTimeToLiveResponse) and response.TTL > 0:
        response.TTL = (response.TTL + TTL_SLACK_S) // 1000  # time passes between the servers
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
