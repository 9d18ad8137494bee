"""Rights that come and go: a warden gives and takes them, guests use them, strangers have none. `checking.rights` has
the rules."""

from __future__ import annotations

import base64
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from google.protobuf.message import Message

from quorate.proto import auth_pb2
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.messages import Op
from tests.checking.history import Fate, Kind, Operation
from tests.checking.rights import NEVER, Grant, Visit
from tests.simulation.whole.clients import OK, Client, Histories
from tests.simulation.whole.people import GUEST, PASSWORD, ROOT, TOKEN_TROUBLE, UNAUTHORIZED, WORKER, Person, Stranger
from tests.simulation.whole.world import MS, SECOND

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import SimCluster
    from tests.simulation.whole.plan import Visitor

VISITED: Final = b"guest/"
NOBODYS: Final = b"nobody/"
CURRENT: Final = 0.7  # share of a guest's calls that go to what was given last
# What it means when an attempt before was not answered.
DONE_BEFORE: Final = frozenset(
    error.text
    for error in (
        errors.USER_ALREADY_EXIST, errors.ROLE_ALREADY_EXIST, errors.PERMISSION_NOT_GRANTED,
        errors.ROLE_NOT_GRANTED, errors.ROLE_NOT_FOUND,
    )
)  # fmt: skip

Ask = tuple[Op, Message]
Script = Generator[Ask | int, tuple[int, str], None]


def permission(role: str, key: bytes, end: bytes) -> Ask:
    both = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=key, range_end=end)
    return Op.ROLE_GRANT_PERMISSION, rpc.AuthRoleGrantPermissionRequest(name=role, perm=both)


def end_of(prefix: bytes) -> bytes:
    """The first key behind everything below a prefix."""
    return prefix[:-1] + b"0"


class Warden(Client):
    """Switches users on after a while, and then gives one right after the other and takes it away again."""

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        super().__init__(cluster, visitor, histories)
        self.person = Person(ROOT, self.rng, has_certificate=self.rng.random() < 0.3)
        self._begins = self.rng.choice((0, 0, 1, 3)) * self._phase()
        self._script = self._live()

    def begin(self) -> None:
        self._go(next(self._script))

    def _phase(self) -> int:
        return int(self.rng.uniform(0.1, 1.0) * SECOND * self.cluster.plan.pace)

    def _go(self, step: Ask | int) -> None:
        if isinstance(step, int):
            self.world.after(step, self._answered, OK, "")
        else:
            self._ask(step)

    def _ask(self, step: Ask) -> None:
        if self.is_over:
            return
        if not self.node.api.is_open:
            self.move()
            self.world.after(20 * MS, self._ask, step)
            return
        self.call(step[0], step[1].SerializeToString(), lambda code, text, _body: self._answered(code, text))

    def _answered(self, code: int, text: str) -> None:
        if not self.is_over:
            self._go(self._script.send((code, text)))

    def _live(self) -> Script:
        yield self._begins
        password = base64.b64encode(PASSWORD).decode()
        for name in (ROOT, WORKER, GUEST):
            yield from self._until_done((Op.USER_ADD, rpc.AuthUserAddRequest(name=name, hashedPassword=password)))
            yield from self._until_done((Op.ROLE_ADD, rpc.AuthRoleAddRequest(name=name)))
            if name == WORKER:
                yield from self._until_done(permission(name, b"\0", b"\0"))
            yield from self._until_done((Op.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=name, role=name)))
        yield from self._until_done((Op.AUTH_ENABLE, rpc.AuthEnableRequest()))
        self.histories.users_since = self.world.now
        while True:
            yield from self._give_and_take(len(self.histories.grants))

    def _give_and_take(self, number: int) -> Script:
        prefix = VISITED + b"%d/" % number
        before, give, take = self._way(number, prefix)
        for step in before:
            yield from self._until_done(step)
        self.histories.grants.append(Grant(prefix))
        yield self._phase()
        self._note(give_invoked_ns=self.world.now)
        is_settled = yield from self._until_done(give)
        self._note(is_settled=is_settled, given_ns=self.world.now)
        yield self._phase()
        self._note(take_invoked_ns=self.world.now)
        yield from self._until_done(take)
        self._note(taken_ns=self.world.now)

    def _way(self, number: int, prefix: bytes) -> tuple[tuple[Ask, ...], Ask, Ask]:
        """How this right is laid out, given and taken away."""
        role, end = f"visitor {number}", end_of(prefix)
        laid_out: tuple[Ask, ...] = (Op.ROLE_ADD, rpc.AuthRoleAddRequest(name=role)), permission(role, prefix, end)
        given: Ask = Op.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=GUEST, role=role)
        match self.rng.randrange(3):
            case 0:
                revoke = rpc.AuthRoleRevokePermissionRequest(role=GUEST, key=prefix, range_end=end)
                return (), permission(GUEST, prefix, end), (Op.ROLE_REVOKE_PERMISSION, revoke)
            case 1:
                return laid_out, given, (Op.USER_REVOKE_ROLE, rpc.AuthUserRevokeRoleRequest(name=GUEST, role=role))
            case _:
                return laid_out, given, (Op.ROLE_DELETE, rpc.AuthRoleDeleteRequest(role=role))

    def _note(self, **changed: int | bool) -> None:
        grants = self.histories.grants
        grants[-1] = grants[-1]._replace(**changed)  # type: ignore[arg-type]

    def _until_done(self, step: Ask) -> Generator[Ask | int, tuple[int, str], bool]:
        """Asks until it is done; whether each attempt's fate is known."""
        is_settled = True
        while True:
            code, text = yield step
            if code == OK or (text in DONE_BEFORE and not is_settled):
                return is_settled
            is_settled = is_settled and text in (*TOKEN_TROUBLE, errors.TOO_MANY_REQUESTS.text)
            yield 50 * MS


class Guest(Client):
    """Puts and reads, where it may now, where it might have, just beyond, and where nobody may."""

    def __init__(self, cluster: SimCluster, visitor: Visitor, histories: Histories) -> None:
        super().__init__(cluster, visitor, histories)
        self.person = self._who()

    def _who(self) -> Person:
        return Person(GUEST, self.rng, has_certificate=self.rng.random() < 0.3)

    def act(self) -> None:
        if self.histories.users_since == NEVER:
            self._next()
            return
        grants = self.histories.grants
        prefix = (grants[-1] if self.rng.random() < CURRENT else self.rng.choice(grants)).prefix
        if isinstance(self.person, Stranger):
            prefix = NOBODYS
        self._visit(prefix)

    def _visit(self, prefix: bytes) -> None:
        way = self.rng.choice(("put", "put", "range", "txn", "nested", "beyond", "too far"))
        key, value = prefix + b"%d" % self.rng.randrange(3), self.value()
        if way == "beyond":
            key = end_of(prefix)
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
        op, request, lane = Op.TXN, rpc.TxnRequest(success=[put]).SerializeToString(), "writes"
        if way == "nested":
            inner = rpc.RequestOp(request_txn=rpc.TxnRequest(success=[put]))
            request = rpc.TxnRequest(success=[inner]).SerializeToString()
        elif way in ("put", "beyond"):
            op, request = Op.PUT, put.request_put.SerializeToString()
        elif way == "range":
            op, request, lane = Op.RANGE, rpc.RangeRequest(key=key).SerializeToString(), "reads"
        elif way == "too far":
            wide = rpc.RangeRequest(key=prefix, range_end=end_of(prefix) + b"\0")
            op, request, lane = Op.RANGE, wide.SerializeToString(), "reads"
        judged = NOBODYS if way in ("beyond", "too far") else prefix
        connection, invoked = self.connection, self.world.now

        def answered(code: int, text: str, body: bytes) -> None:
            returned = self.world.now
            fate = Fate.DONE if code == OK else Fate.REFUSED if text in UNAUTHORIZED else Fate.UNKNOWN
            is_right = text == errors.PERMISSION_DENIED.text or isinstance(self.person, Stranger)
            if code == OK or (fate is Fate.REFUSED and is_right):
                self.histories.visits.append(Visit(judged, way, invoked, returned, code == OK))
            at = (invoked, returned, fate)
            if lane == "writes":
                answer = (rpc.PutResponse if op is Op.PUT else rpc.TxnResponse).FromString(body)
                done = Operation(connection, Kind.PUT, key, value, 0, *at, answer.header.revision)
                self.histories.operations.append(done)
            elif fate is Fate.DONE and way == "range":
                found = rpc.RangeResponse.FromString(body)
                seen = (found.kvs[0].value, found.kvs[0].mod_revision) if found.kvs else (None, 0)
                read = Operation(connection, Kind.GET, key, b"", 0, *at, found.header.revision, False, *seen)
                self.histories.operations.append(read)
            self._next()

        self.call(op, request, answered, lane)


class Outsider(Guest):
    """Nobody knows it: it has no token, or one that it made up."""

    def _who(self) -> Person:
        return Stranger(self.rng, self.rng.choice(("", "abcdefghabcdefgh.7", "not a token")))
