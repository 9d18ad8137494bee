"""The judge in front of commands and questions: what a caller may, at every place of the log."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from quorate.proto import auth_pb2, rpc_pb2
from quorate.storage.judge import plain_put_key, plain_range_key
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import NODE, UNJUDGED, Caller, Need, TokenGrant
from quorate.wire.messages import RESULT, STORAGE_WORKER, Op, Origin, chunks_of, pack_chunk, pack_command
from tests.storage.member import MEMBER_ID, Member


class Guarded(Member):
    """A member with auth on: root, alice with [a, c) to read and write, reader who may read it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for name in ("root", "alice", "reader"):
            self.do("", Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name=name, hashedPassword="aA=="))
        for name, kind in (("alice", auth_pb2.Permission.READWRITE), ("reader", auth_pb2.Permission.READ)):
            self.do("", Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name=name))
            self.permit("", name, kind, b"a", b"c")
            self.do("", Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user=name, role=name))
        self.do("", Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
        self.do("", Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest())

    def permit(self, by: str, role: str, kind: auth_pb2.Permission.Type.ValueType, key: bytes, end: bytes) -> None:
        permission = auth_pb2.Permission(permType=kind, key=key, range_end=end)
        self.do(by, Op.ROLE_GRANT_PERMISSION, rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission))

    def identity(self, name: str, revision: int | None = None) -> bytes:
        return Caller(name, self.state.auth.revision if revision is None else revision).pack() if name else b""

    def do(self, name: str, op: Op, request: Any, revision: int | None = None) -> bytes:
        """Apply a command as somebody."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        return self._raw([pack_command(op, body, self.identity(name, revision))])[0]

    def question(self, identity: bytes, op: Op, request: Any) -> Any:
        body = request if isinstance(request, bytes) else request.SerializeToString()
        (chunk,) = chunks_of(pack_chunk(Origin(MEMBER_ID, 7, 0), 0, [pack_command(op, body, identity)]))
        (result,) = self.questions.chunk(chunk)
        return _body(result) if isinstance(result, bytes) else result

    def _raw(self, commands: list[bytes], worker: int = 0) -> list[bytes]:
        self.log.append(pack_chunk(Origin(MEMBER_ID, 7, worker), len(self.log), commands))
        results = self._apply_entry(len(self.log) - 1)
        return [_body(result) for result in results if isinstance(result, bytes)]


def _body(result: bytes) -> bytes:
    error_id, _ = RESULT.unpack_from(result)
    if error_id:
        raise CallFailed(errors.by_id(error_id))
    return result[RESULT.size :]


def fails(error: EtcdError, call: Callable[[], object]) -> None:
    with pytest.raises(CallFailed) as failure:
        call()
    assert failure.value.error == error


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Guarded]:
    made = Guarded(tmp_path / "db")
    yield made
    made.close()


def test_a_right_is_gone_for_whatever_stands_behind_its_revocation_in_the_log(member: Guarded) -> None:
    put = rpc_pb2.PutRequest(key=b"a", value=b"1").SerializeToString()
    member.do("alice", Op.PUT, put)
    admitted = member.identity("alice")
    revoke = rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="alice").SerializeToString()
    commands = [
        pack_command(Op.PUT, put, admitted),
        pack_command(Op.USER_REVOKE_ROLE, revoke, member.identity("root")),
        pack_command(Op.PUT, put, admitted),
    ]
    fails(errors.AUTH_OLD_REVISION, lambda: member._raw(commands))
    assert member.state.store.revision == 3
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.PUT, put))


def test_a_token_that_was_not_looked_at_is_looked_at_again_once_auth_is_on(member: Guarded) -> None:
    for op, request in ((Op.RANGE, rpc_pb2.RangeRequest(key=b"a")), (Op.STATUS, b""), (Op.PERMISSION, b"\1")):
        fails(errors.AUTH_OLD_REVISION, partial(member.question, UNJUDGED, op, request))


def test_enabling_holds_for_the_rest_of_its_chunk(tmp_path: Path) -> None:
    member = Guarded(tmp_path / "db")
    member.do("root", Op.AUTH_DISABLE, b"")
    put = pack_command(Op.PUT, rpc_pb2.PutRequest(key=b"a").SerializeToString())
    fails(errors.USER_EMPTY, lambda: member._raw([put, pack_command(Op.AUTH_ENABLE, b""), put]))
    assert member.state.store.revision == 2
    member.close()


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300])
def test_plain_puts_are_judged_by_their_key_whatever_the_length_of_the_value(member: Guarded, length: int) -> None:
    mine, another = (rpc_pb2.PutRequest(key=key, value=b"v" * length).SerializeToString() for key in (b"a", b"c"))
    assert (plain_put_key(mine), plain_put_key(another)) == (b"a", b"c")
    member.do("alice", Op.PUT, mine)
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.PUT, another))
    fails(errors.PERMISSION_DENIED, lambda: member.do("reader", Op.PUT, mine))


@pytest.mark.parametrize(
    "request_",
    [
        rpc_pb2.PutRequest(key=b"a", value=b"1", prev_kv=True),
        rpc_pb2.PutRequest(key=b"a", value=b"1", lease=5),
        rpc_pb2.PutRequest(key=b"a" * 128, value=b"1"),
        rpc_pb2.PutRequest(value=b"1"),
        rpc_pb2.PutRequest(),
    ],
)
def test_a_put_with_more_than_key_and_value_is_not_plain(request_: rpc_pb2.PutRequest) -> None:
    assert plain_put_key(request_.SerializeToString()) == b""


def test_a_key_that_is_judged_is_the_key_that_is_put_however_lengths_are_written(member: Guarded) -> None:
    """alice may write "a". A length of two octets where one would do makes the put one of another key to some."""
    closed, mine = b"\x0a\x01c\x12\x85\x00hello", b"\x0a\x01a"
    unknown = b"x" * (5 + 0x85 - len(closed) - len(mine) - 2)
    member.do("alice", Op.PUT, closed + mine + bytes((0x7A, len(unknown))) + unknown)
    assert [b"a"] == list(member.state.store.index.live)


def test_fields_that_come_twice_are_not_plain() -> None:
    first, second = (rpc_pb2.PutRequest(key=key, value=b"1").SerializeToString() for key in (b"a", b"z"))
    assert plain_put_key(first + second) == b""
    assert plain_put_key(first + second[:3]) == b""
    keys = [rpc_pb2.RangeRequest(key=key).SerializeToString() for key in (b"a", b"z")]
    assert plain_range_key(b"".join(keys)) == b""


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (rpc_pb2.RangeRequest(key=b"a"), b"a"),
        (rpc_pb2.RangeRequest(key=b"a", serializable=True), b"a"),
        (rpc_pb2.RangeRequest(key=b"a", range_end=b"\0"), b""),
        (rpc_pb2.RangeRequest(key=b"a", limit=1), b""),
        (rpc_pb2.RangeRequest(), b""),
    ],
)
def test_a_range_is_plain_when_it_asks_for_one_key(request_: rpc_pb2.RangeRequest, key: bytes) -> None:
    assert plain_range_key(request_.SerializeToString()) == key


def test_a_lease_is_closed_to_whoever_may_not_write_all_its_keys(member: Guarded) -> None:
    member.do("alice", Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=5, TTL=60))
    member.do("root", Op.PUT, rpc_pb2.PutRequest(key=b"z", lease=5))
    attach = rpc_pb2.PutRequest(key=b"a", lease=5)
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.PUT, attach))
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=5)))
    keep_alive = rpc_pb2.LeaseKeepAliveRequest(ID=5)
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.LEASE_KEEP_ALIVE, keep_alive))
    fails(errors.PERMISSION_DENIED, lambda: member.question(member.identity("alice"), Op.LEASE_LEASES, b""))
    member.do("root", Op.PUT, rpc_pb2.PutRequest(key=b"z"))
    member.do("alice", Op.PUT, attach)
    assert 5 in member.state.lessor.leases
    member.do("alice", Op.LEASE_REVOKE, rpc_pb2.LeaseRevokeRequest(ID=5))
    assert 5 not in member.state.lessor.leases


def test_only_storage_itself_ends_overdue_leases(member: Guarded) -> None:
    member.do("root", Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=5, TTL=60))
    granted_at = member.state.lessor.leases[5].renewed_index
    overdue = (5).to_bytes(8, "little") + granted_at.to_bytes(8, "little")
    fails(errors.PERMISSION_DENIED, lambda: member.do("alice", Op.LEASE_EXPIRE, overdue))
    member._raw([pack_command(Op.LEASE_EXPIRE, overdue)], STORAGE_WORKER)
    assert not member.state.lessor.leases


def test_the_node_may_ask_about_itself_but_orders_nothing(member: Guarded) -> None:
    assert member.question(NODE, Op.STATUS, b"")
    fails(errors.USER_EMPTY, lambda: member.question(b"", Op.STATUS, b""))


@pytest.mark.parametrize(
    ("name", "need", "error"),
    [
        ("root", Need.ADMIN, None),
        ("alice", Need.ADMIN, errors.PERMISSION_DENIED),
        ("stranger", Need.ADMIN, errors.USER_NOT_FOUND),
        ("", Need.ADMIN, errors.USER_EMPTY),
        ("alice", Need.USER, None),
        ("stranger", Need.USER, errors.USER_NOT_FOUND),
        ("", Need.USER, errors.USER_EMPTY),
    ],
)
def test_permission_for_what_other_parts_do(member: Guarded, name: str, need: Need, error: EtcdError | None) -> None:
    def ask() -> object:
        return member.question(member.identity(name), Op.PERMISSION, bytes((need,)))

    if error is None:
        ask()
    else:
        fails(error, ask)


def test_users_tokens_and_the_revision_survive_a_restart(member: Guarded) -> None:
    grant = TokenGrant("alice", "abc", member.state.auth.revision)
    token = rpc_pb2.AuthenticateResponse.FromString(member.do("", Op.AUTHENTICATE, grant.pack())).token
    before = member.state.auth.revision
    member.restart()
    assert member.state.auth.revision == before
    assert Caller.unpack(member.question(b"", Op.TOKEN, token.encode())) == Caller("alice", before)
    fails(errors.INVALID_AUTH_TOKEN, lambda: member.question(b"", Op.TOKEN, b"abc.1"))
