"""Who calls: a token or certificate becomes the identity that goes before each command.

The answer is remembered in the `Context` of the call, which a connection keeps for all calls with the same headers, and
by token for other connections. `epoch` counts what makes such memories void: any change of users and roles, which
storage tells every worker before it answers the call that made it, and the passing of time. So a usual call costs one
comparison. What a remembered identity may do is judged by storage each time, under the auth revision it carries.

Simple tokens live on as long as they are used. Storage keeps their time; what is used here is told to it once in each
eighth of the time to live, so that a token lives no shorter and at most a quarter longer than etcd's would.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from quorate.api.ring import Ring
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import UNJUDGED, AuthState, Caller
from quorate.wire.messages import Kind, Op, Part

WAITING_MAX: Final = 20_000  # calls that wait to be told whose they are
SESSIONS_MAX: Final = 65_536  # tokens remembered; beyond it storage is asked more often
REFRESHES: Final = 8  # in the time to live of a simple token
JWT_CHECK_S: Final = 1.0  # how long a JWT may be used after its end
TOKEN_BYTES_MAX: Final = 16_384
BEARER: Final = "Bearer "

Then = Callable[[int, str], None]  # gRPC code (0: the context has its identity now) and message


class Claim(Protocol):
    """The part of a call's context that says who calls; `identity` is right while `epoch` is that of `Callers`."""

    token: str | None  # as the metadata have it
    common_name: str  # of a verified client certificate
    identity: bytes
    epoch: int


class Verifier(Protocol):
    """Verifies tokens without asking storage (see `tokens`)."""

    def verify(self, token: str, now_s: float) -> Caller: ...


class Session:
    """A token that was found good."""

    __slots__ = ("identity", "is_used")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.is_used = True  # since storage was told last


class Callers:
    """What one api worker knows of its callers. `verifier` is there for JWT and absent for simple tokens."""

    def __init__(self, ring: Ring, verifier: Verifier | None = None, token_ttl_s: float = 300.0) -> None:
        self.epoch = 0
        self.state = AuthState(False, 0)
        self._ring = ring
        self._verifier = verifier
        self._interval_s = JWT_CHECK_S if verifier is not None else token_ttl_s / REFRESHES
        self._sessions: dict[str, Session] = {}
        self._asking: dict[str, list[tuple[Claim, Then]]] = {}
        self._waiting = 0  # calls, for all tokens that are asked for
        self._is_ticking = False
        ring.on_open(Part.STORAGE, self._on_state)
        ring.on_message(Part.STORAGE, Kind.AUTH, self._on_state)

    def identify(self, claim: Claim, then: Then) -> None:
        """Give `claim` its identity and call `then`: before this returns where it is known, else when storage has said
        whether the token is good."""
        if claim.epoch == self.epoch:
            then(0, "")
            return
        try:
            known = self.recognize(claim)
        except CallFailed as failed:
            then(failed.error.code, failed.error.text)
            return
        if known:
            then(0, "")
        else:
            self.ask(claim, then)

    def recognize(self, claim: Claim) -> bool:
        """Give `claim` its identity if that is known here; False: storage has to be asked. Raises CallFailed for a
        token that is not good."""
        if claim.token is None and not claim.common_name:
            return self._settle(claim, b"")
        if not self.state.enabled:
            return self._settle(claim, UNJUDGED)
        if claim.token is None:
            return self._settle(claim, self._named(claim))
        token = claim.token.removeprefix(BEARER)
        session = self._sessions.get(token)
        if session is None:
            if self._verifier is None:
                return False
            try:
                session = self._verified(self._verifier, token)
            except CallFailed:
                if not claim.common_name:
                    raise
                return self._settle(claim, self._named(claim))
        session.is_used = True
        return self._settle(claim, session.identity)

    def ask(self, claim: Claim, then: Then) -> None:
        """Have storage say whom the token stands for; `then` is called from the event loop."""
        token = (claim.token or "").removeprefix(BEARER)
        waiting = self._asking.get(token)
        if self._waiting >= WAITING_MAX:
            then(errors.TOO_MANY_REQUESTS.code, errors.TOO_MANY_REQUESTS.text)
        elif waiting is not None:
            self._waiting += 1
            waiting.append((claim, then))
        elif len(token) > TOKEN_BYTES_MAX or not _is_encodable(token):
            self._tell(claim, then, errors.INVALID_AUTH_TOKEN.code, errors.INVALID_AUTH_TOKEN.text)
        else:
            self._waiting += 1
            self._asking[token] = [(claim, then)]
            self._ask_storage(token, is_first=True)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _settle(self, claim: Claim, identity: bytes) -> bool:
        claim.identity = identity
        claim.epoch = self.epoch
        return True

    def _named(self, claim: Claim) -> bytes:
        return Caller(claim.common_name, self.state.revision).pack()

    def _verified(self, verifier: Verifier, token: str) -> Session:
        """A session for a JWT, which is verified once in JWT_CHECK_S."""
        session = Session(verifier.verify(token, time.time()).pack())
        self._remember(token, session)
        return session

    def _remember(self, token: str, session: Session) -> None:
        if len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[token] = session
        if not self._is_ticking:
            self._is_ticking = True
            self._ring.at(self._ring.now() + self._interval_s, self._tick)

    def _ask_storage(self, token: str, is_first: bool) -> None:
        """First what this member knows, then behind everything that was ordered: the token may be that new."""
        lane = self._ring.local if is_first else self._ring.reads
        try:
            self._ring.add(lane, Op.TOKEN, token.encode(), partial(self._on_answer, token, is_first))
        except CallFailed as failed:
            self._ring.soon(self._on_answer, token, False, failed.error.code, failed.error.text, b"")

    def _on_answer(self, token: str, is_first: bool, code: int, message: str, identity: bytes) -> None:
        if code == errors.INVALID_AUTH_TOKEN.code and is_first and _has_simple_form(token):
            self._ask_storage(token, is_first=False)
            return
        if not code:
            self._remember(token, Session(identity))
        asked = self._asking.pop(token, [])
        self._waiting -= len(asked)
        for claim, then in asked:
            if not code:
                self._settle(claim, identity)
            self._tell(claim, then, code, message)

    def _tell(self, claim: Claim, then: Then, code: int, message: str) -> None:
        """The outcome; a certificate stands in for a token that is not good, as in etcd."""
        if code == errors.INVALID_AUTH_TOKEN.code and claim.common_name:
            self._settle(claim, self._named(claim))
            then(0, "")
        else:
            then(code, message)

    def _on_state(self, body: bytes) -> None:
        self.state = AuthState.unpack(body)
        self._sessions.clear()
        self.epoch += 1

    def _tick(self) -> None:
        """Tell storage which tokens were used, forget the others, and have every context look again."""
        self.epoch += 1
        sessions, self._sessions = self._sessions, {}
        self._is_ticking = False
        if self._verifier is None:
            for token, session in sessions.items():
                if session.is_used:
                    session.is_used = False
                    self._remember(token, session)
                    self._refresh(token)

    def _refresh(self, token: str) -> None:
        def refreshed(code: int, _message: str, _identity: bytes) -> None:
            if code == errors.INVALID_AUTH_TOKEN.code and self._sessions.pop(token, None) is not None:
                self.epoch += 1

        try:
            self._ring.add(self._ring.local, Op.TOKEN, token.encode(), refreshed)
        except CallFailed:
            return  # the node is overloaded; the next eighth tells it


def _has_simple_form(token: str) -> bool:
    """Letters, a dot and a log index."""
    letters, _, index = token.partition(".")
    return letters.isalpha() and index.isdecimal() and len(token) < 64


def _is_encodable(token: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in token)
