"""Who calls: by a token, a certificate or nothing; the way in is that of production, but for bcrypt."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from quorate.proto.rpc_pb2 import AuthenticateResponse
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import Caller, Credentials, TokenGrant
from quorate.wire.messages import Op
from tests.simulation.whole.world import SECOND

if TYPE_CHECKING:
    from tests.simulation.whole.node import ApiHost

PASSWORD: Final = b"secret"
ROOT: Final = "root"
WORKER: Final = "worker"
GUEST: Final = "guest"
# The token is missing, over, or older than a change of users: another one is needed. Nothing was done.
TOKEN_TROUBLE: Final = frozenset(
    (errors.USER_EMPTY.text, errors.INVALID_AUTH_TOKEN.text, errors.AUTH_OLD_REVISION.text, errors.AUTH_FAILED.text)
)
UNAUTHORIZED: Final = TOKEN_TROUBLE | {errors.PERMISSION_DENIED.text}

Then = Callable[[int, str], None]


class Claim:
    """What a connection remembers of its caller (`api.callers.Claim`)."""

    def __init__(self, token: str | None, common_name: str) -> None:
        self.token = token
        self.common_name = common_name
        self.identity = b""
        self.epoch = -1


class Person:
    """Shows no token as long as nobody asks for one. With a certificate it never needs any."""

    def __init__(self, name: str, rng: random.Random, has_certificate: bool = False) -> None:
        self.name = name
        self.token = ""
        self._rng = rng
        self._common_name = name if has_certificate else ""
        self._is_asked = False
        self._claim = Claim(None, self._common_name)
        self._connection = (0, 0)

    def enter(self, api: ApiHost, then: Callable[[int, str, bytes], None]) -> None:
        """Calls `then(code, text, identity)`, after a login where one is needed. Within the api process."""
        if not self._is_asked or self.token or self._common_name:
            self._identify(api, then)
            return

        def logged_in(code: int, text: str) -> None:
            if text == errors.AUTH_NOT_ENABLED.text:
                self._is_asked = False
            elif code:
                then(code, text, b"")
                return
            self._identify(api, then)

        self._log_in(api, logged_in)

    def refused(self, text: str) -> None:
        """Takes note of why a call was refused."""
        if text in TOKEN_TROUBLE:
            self._is_asked = True
            if text != errors.AUTH_OLD_REVISION.text or self.token.count(".") == 2 or self._rng.random() < 0.5:
                self.token = ""

    def _identify(self, api: ApiHost, then: Callable[[int, str, bytes], None]) -> None:
        connection = (api.node.number, api.process.life)
        token = self.token or None
        if connection != self._connection or self._claim.token != token:
            self._connection = connection
            self._claim = Claim(token, self._common_name)
        claim = self._claim
        assert api.callers is not None
        api.callers.identify(claim, lambda code, text: then(code, text, claim.identity))

    def _log_in(self, api: ApiHost, then: Then) -> None:
        """As `api.v3rpc.auth` does it: a linearizable read of the password, the check, and an ordered command."""
        ring = api.ring
        assert ring is not None
        signer = api.node.cluster.signer

        def found(code: int, text: str, body: bytes) -> None:
            if code:
                then(code, text)
                return
            credentials = Credentials.unpack(body)
            if credentials.password_hash != PASSWORD:
                then(errors.AUTH_FAILED.code, errors.AUTH_FAILED.text)
                return
            letters = "" if signer is not None else "".join(self._rng.choices("abcdefgh", k=16))
            revision = credentials.auth_revision

            def given(code: int, text: str, body: bytes) -> None:
                if not code and signer is not None:
                    self.token = signer.sign(Caller(self.name, revision), api.process.world.now / SECOND)
                elif not code:
                    self.token = AuthenticateResponse.FromString(body).token
                then(code, text)

            try:
                ring.add(ring.writes, Op.AUTHENTICATE, TokenGrant(self.name, letters, revision).pack(), given)
            except CallFailed as failed:
                then(failed.error.code, failed.error.text)

        ring.add(ring.reads, Op.CREDENTIALS, self.name.encode(), found)


class Stranger(Person):
    """Shows what it has, and nobody gives it anything else."""

    def __init__(self, rng: random.Random, token: str) -> None:
        super().__init__("", rng)
        self.token = token

    def refused(self, text: str) -> None:
        return


def root_of(api: ApiHost) -> bytes:
    """The identity of an operator, who has a certificate of root."""
    return Caller(ROOT, api.callers.state.revision).pack() if api.callers is not None else b""
