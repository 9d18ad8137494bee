"""Why a handshake failed, in the words Go has for it, and told once per cause instead of once per attempt."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from quorate.node.logs import Log

NOT_TLS: Final = "tls: first record does not look like a TLS handshake"
HANDSHAKE_TIMEOUT: Final = "tls: handshake timeout"
CLOSED: Final = "EOF"

TELL_EVERY_S: Final = 10.0  # of one cause; what came in between is counted
CAUSES_MAX: Final = 100  # remembered at a time; texts may hold what a client chose, such as a serial number

_VERIFICATION: Final = {  # OpenSSL's verify codes
    2: "x509: certificate signed by unknown authority",
    9: "x509: certificate has expired or is not yet valid: it is not yet valid",
    10: "x509: certificate has expired or is not yet valid: it has expired",
    18: "x509: certificate signed by unknown authority: it is self-signed",
    19: "x509: certificate signed by unknown authority: a CA in its chain is self-signed and not trusted",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
    26: "x509: certificate specifies an incompatible key usage",
}
_REASONS: Final = {  # OpenSSL's reason codes
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls: client didn't provide a certificate",
    "HTTP_REQUEST": NOT_TLS,
    "WRONG_VERSION_NUMBER": NOT_TLS,
    "UNSUPPORTED_PROTOCOL": "tls: client offered only unsupported versions",
    "NO_SHARED_CIPHER": "tls: no cipher suite supported by both client and server",
    "UNEXPECTED_EOF_WHILE_READING": CLOSED,
}
_PLACE: Final = re.compile(r"\s*\(_ssl\.c:\d+\)")


def explain(error: BaseException) -> str:
    """One sentence without OpenSSL's source lines; other errors speak for themselves."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFICATION.get(error.verify_code)
        return f"tls: failed to verify certificate: {known or error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return CLOSED
    if isinstance(error, TimeoutError):
        return HANDSHAKE_TIMEOUT if "handshake" in str(error) else str(error) or "timed out"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "ALERT_" in reason:
            return f"remote error: tls: {reason.partition('ALERT_')[2].lower().replace('_', ' ')}"
        return _REASONS.get(reason) or f"tls: {reason.lower().replace('_', ' ') or _PLACE.sub('', str(error))}"
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror.lower()
    return str(error) or type(error).__name__


@dataclass(slots=True)
class _Told:
    at: float
    suppressed: int = 0


class Refusals:
    """The log of those who were not let in."""

    def __init__(self, log: Log, message: str, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._message = message
        self._now = now
        self._told: dict[str, _Told] = {}

    def tell(self, address: str, cause: str) -> None:
        """Write a line about a refused connection, unless one with this cause was written just before."""
        now = self._now()
        told = self._told.get(cause)
        if told is not None and now - told.at < TELL_EVERY_S:
            told.suppressed += 1
            return
        if told is None and len(self._told) >= CAUSES_MAX:
            self._told.clear()
        self._told[cause] = _Told(now)
        fields: dict[str, object] = {"remote-addr": address, "error": cause}
        if told is not None and told.suppressed:
            fields["suppressed"] = told.suppressed
        self._log.warn(self._message, **fields)
