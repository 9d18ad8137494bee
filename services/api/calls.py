"""Every call of etcd's API and the way it takes: check the limits, check who asks, choose the lane of the ring.

gRPC and the JSON gateway both come here. A method is a `Route` (unary) or a `StreamRoute`, given by the modules of
`v3rpc`; a method without one is answered as gRPC answers it, UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from quorate.api import faults
from quorate.api.callers import Callers
from quorate.api.calling import CallStream, Cancel, Done, Metadata
from quorate.api.http2.messages import PREFIX_BYTES, prefix
from quorate.api.ring import Ring
from quorate.api.tally import REQUESTS, Requests, Tally
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import NODE
from quorate.wire.messages import Role

REQUEST_OVERHEAD_BYTES: Final = 18  # what etcd's log entry adds to a request of the largest size
LEADER_CHECKS: Final = 3  # election timeouts a stream that wants a leader bears without one


def _is_text(value: str) -> bool:
    """The octets of the header were UTF-8 (others are carried as surrogates)."""
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


class Context:
    """What the metadata of a call say; made once for all calls with the same headers."""

    __slots__ = (
        "common_name",
        "epoch",
        "identity",
        "is_plain",
        "metadata",
        "names_caller",
        "requests",
        "token",
        "wants_leader",
    )

    def __init__(self, metadata: Metadata, common_name: str = "") -> None:
        self.metadata = metadata
        self.common_name = common_name  # of the verified client certificate, where --client-cert-auth is on
        self.wants_leader = metadata.get("hasleader") == "true"
        version = metadata.get("client-api-version", "")
        self.is_plain = not self.wants_leader and _is_text(version)
        self.requests = REQUESTS.of(version if _is_text(version) else "")
        token = metadata.get("token")
        self.token = token if token is not None else metadata.get("authorization")
        self.names_caller = self.token is not None or bool(common_name)
        self.identity = b""  # see `callers`: right while `epoch` is
        self.epoch = -1


NO_CONTEXT: Final = Context({})
NODE_CONTEXT: Final = Context({})  # of the node itself
NODE_CONTEXT.identity = NODE
NODE_CONTEXT.requests = Requests()  # which nobody counts

Unary = Callable[[bytes, Context, Done, float | None], Cancel | None]
Respond = Callable[[bytes], None]
StreamDone = Callable[[int, str], None]


class Responses(Protocol):
    """Where the responses of a stream go. When the caller takes no more, the stream is told with `pause`."""

    def send(self, message: bytes) -> None:
        """One response."""

    def send_framed(self, messages: bytes) -> None:
        """Several responses as gRPC frames them, each with its prefix of five octets."""


OpenStream = Callable[[Context, Responses, StreamDone], CallStream]


class Route(NamedTuple):
    """A unary method. `start(request, context, done, expires_at)` may raise CallFailed and DecodeError instead of
    calling `done`; it returns how to cancel a call that can wait long."""

    start: Unary
    serves_learner: bool = False  # a learner answers it, or `start` decides
    is_open: bool = False  # nobody is asked who they are: a bad token is not looked at


class StreamRoute(NamedTuple):
    """A method with a stream on either side.

    `open(context, responses, done)` may raise CallFailed; it uses neither of the two before it has returned.
    Deadlines and the wish for a leader are looked after here: the stream is cancelled when one of them ends it.
    """

    open: OpenStream
    serves_learner: bool = False
    is_lasting: bool = False  # ends when its client wants it to, and is opened again elsewhere when this worker stops


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of one request; the defaults are etcd's."""

    request_bytes_max: int = 1_572_864  # --max-request-bytes
    txn_ops_max: int = 128  # --max-txn-ops

    def check_size(self, body: bytes) -> None:
        """Raises CallFailed for a request that the log would not take."""
        if len(body) + REQUEST_OVERHEAD_BYTES > self.request_bytes_max:
            raise CallFailed(errors.REQUEST_TOO_LARGE)


class Calls:
    """The one place a call enters the node by; implements `calling.Calls`."""

    def __init__(
        self,
        ring: Ring,
        routes: Mapping[str, Route],
        streams: Mapping[str, StreamRoute],
        callers: Callers,
    ) -> None:
        self.callers = callers
        self.routes = dict(routes)
        self.streams = dict(streams)
        self.tallies = {method: Tally() for method in (*self.routes, *self.streams)}
        self._ring = ring
        self._want_leader: set[_Bound] = set()
        self._lasting: set[_Bound] = set()
        self._stop_counting: Callable[[], None] | None = None
        ring.on_role(self._on_role)
        self._services = {_service_of(method) for method in (*self.routes, *self.streams)}

    def unary(
        self, method: str, body: bytes, metadata: Metadata, done: Done, deadline_s: float | None = None
    ) -> Cancel | None:
        """See `calling.UnaryCalls`; `done` may be called before this returns."""
        route = self.routes.get(method)
        if route is None:
            done(errors.Code.UNIMPLEMENTED, self.unknown_text(method), b"")
            return None
        expires_at = None if deadline_s is None else self._ring.now() + deadline_s
        tally = self.tallies[method]
        tally.started += 1

        def counted(code: int, message: str, response: bytes) -> None:
            tally.finished(code)
            done(code, message, response)

        return self.start(route, body, Context(metadata) if metadata else NO_CONTEXT, counted, expires_at)

    def start(self, route: Route, body: bytes, context: Context, done: Done, expires_at: float | None) -> Cancel | None:
        """Start a unary call whose route is known."""
        context.requests.unary += 1
        try:
            if not context.is_plain or self._ring.is_learner:
                self._admit(context, route.serves_learner)
            if context.names_caller and context.epoch != self.callers.epoch and not route.is_open:
                return self._identify(route, body, context, done, expires_at)
            return route.start(body, context, done, expires_at)
        except Exception as reason:  # whatever it is, it is this call's alone
            done(*faults.outcome(reason), b"")
        return None

    def _identify(
        self, route: Route, body: bytes, context: Context, done: Done, expires_at: float | None
    ) -> Cancel | None:
        """Start a unary call when it is known who calls. Raises CallFailed and DecodeError as routes do."""
        if self.callers.recognize(context):
            return route.start(body, context, done, expires_at)
        waiting = _Waiting()

        def go_on(code: int, message: str) -> None:
            if waiting.is_cancelled:
                return
            if code:
                done(code, message, b"")
                return
            try:
                waiting.cancel_call = route.start(body, context, done, expires_at)
            except Exception as reason:  # as in `start`
                done(*faults.outcome(reason), b"")

        self.callers.ask(context, go_on)
        return waiting.cancel

    def stream(
        self,
        method: str,
        metadata: Metadata,
        respond: Respond,
        done: StreamDone,
        deadline_s: float | None = None,
    ) -> CallStream:
        """See `calling.StreamCalls`."""
        expires_at = None if deadline_s is None else self._ring.now() + deadline_s
        route = self.streams.get(method)
        if route is None:
            return _Refused(self._ring, errors.Code.UNIMPLEMENTED, self.unknown_text(method), done)
        if not route.is_lasting:
            return self.open(route, Context(metadata), _Single(respond), done, expires_at)
        bound = _Bound(done)
        bound.stream = self.open(route, Context(metadata), _Single(respond), bound.finish, expires_at)
        self._lasting.add(bound)
        bound.undo.append(lambda: self._lasting.discard(bound))
        return bound

    def end_lasting(self) -> None:
        """End what `stream` has opened and would not end by itself: this worker stops."""
        for bound in list(self._lasting):
            bound.end(errors.STOPPED)

    def open(
        self,
        route: StreamRoute,
        context: Context,
        responses: Responses,
        done: StreamDone,
        expires_at: float | None,
    ) -> CallStream:
        """Open a stream whose route is known."""
        context.requests.streams += 1
        try:
            self._admit(context, route.serves_learner)
            if expires_at is None and not context.wants_leader:
                return route.open(context, responses, done)
            return self._bound(route, context, responses, done, expires_at)
        except Exception as reason:  # as in `start`
            return _Refused(self._ring, *faults.outcome(reason), done)

    def _bound(
        self, route: StreamRoute, context: Context, responses: Responses, done: StreamDone, expires_at: float | None
    ) -> CallStream:
        bound = _Bound(done)
        bound.stream = route.open(context, responses, bound.finish)
        if expires_at is not None:
            bound.undo.append(self._ring.at(expires_at, bound.end, errors.CONTEXT_DEADLINE_EXCEEDED))
        if context.wants_leader:
            self._want_leader.add(bound)
            bound.undo.append(lambda: self._want_leader.discard(bound))
        return bound

    def _on_role(self, role: Role) -> None:
        """Start counting when the leader is gone, stop when there is one."""
        if role.leader_id:
            if self._stop_counting is not None:
                self._stop_counting()
                self._stop_counting = None
        elif self._stop_counting is None:
            ends_at = self._ring.now() + LEADER_CHECKS * self._ring.election_timeout_s
            self._stop_counting = self._ring.at(ends_at, self._end_leaderless)

    def _end_leaderless(self) -> None:
        self._stop_counting = None
        for bound in list(self._want_leader):
            bound.end(errors.NO_LEADER)

    def unknown_text(self, method: str) -> str:
        """What gRPC says about a method that is not there."""
        service, _, name = method.removeprefix("/").rpartition("/")
        if service in self._services:
            return errors.unknown_method_text(service, name)
        return errors.unknown_service_text(service)

    def _admit(self, context: Context, serves_learner: bool) -> None:
        """etcd's checks before it looks at the request, in its order."""
        if self._ring.is_learner and not serves_learner:
            raise CallFailed(errors.NOT_SUPPORTED_FOR_LEARNER)
        if not _is_text(context.metadata.get("client-api-version", "")):
            raise CallFailed(errors.INVALID_CLIENT_API_VERSION)
        if context.wants_leader and not self._ring.has_leader:
            raise CallFailed(errors.NO_LEADER)


class _Waiting:
    """A call that waits to be told whose it is."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.cancel_call: Cancel | None = None  # once it has started

    def cancel(self) -> None:
        self.is_cancelled = True
        if self.cancel_call is not None:
            self.cancel_call()


class _Single:
    """Responses for a caller who wants them one by one."""

    def __init__(self, respond: Respond) -> None:
        self.send = respond

    def send_framed(self, messages: bytes) -> None:
        position = 0
        while position < len(messages):
            start = position + PREFIX_BYTES
            position = start + prefix.unpack_from(messages, position)[1]
            self.send(messages[start:position])


class _Bound:
    """A stream that something else than its two ends may end: a deadline, or the loss of the leader."""

    def __init__(self, done: StreamDone) -> None:
        self.stream: CallStream | None = None  # set right after the start
        self.undo: list[Callable[[], None]] = []
        self._done = done
        self._is_over = False

    def finish(self, code: int, message: str) -> None:
        if not self._is_over:
            self._release()
            self._done(code, message)

    def end(self, error: EtcdError) -> None:
        if not self._is_over:
            self._opened.cancel()
            self.finish(error.code, error.text)

    def send(self, body: bytes) -> None:
        if not self._is_over:
            self._opened.send(body)

    def half_close(self) -> None:
        if not self._is_over:
            self._opened.half_close()

    def cancel(self) -> None:
        if not self._is_over:
            self._release()
            self._opened.cancel()

    def pause(self) -> None:
        self._opened.pause()

    def resume(self) -> None:
        self._opened.resume()

    @property
    def _opened(self) -> CallStream:
        assert self.stream is not None, "a stream is opened before it is handed out"
        return self.stream

    def _release(self) -> None:
        self._is_over = True
        undo, self.undo = self.undo, []
        for each in undo:
            each()


class _Refused:
    """A stream that ends at the next turn of the loop and takes nothing."""

    def __init__(self, ring: Ring, code: int, message: str, done: StreamDone) -> None:
        self._is_over = False
        ring.soon(self._end, code, message, done)

    def send(self, body: bytes) -> None:
        pass

    def half_close(self) -> None:
        pass

    def cancel(self) -> None:
        self._is_over = True

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def _end(self, code: int, message: str, done: StreamDone) -> None:
        if not self._is_over:
            self._is_over = True
            done(code, message)


def _service_of(method: str) -> str:
    return method.removeprefix("/").rpartition("/")[0]
