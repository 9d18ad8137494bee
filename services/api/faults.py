"""How a call that failed ends: with its refusal, or for a fault of our own with an error and a stack trace in the log.

What fails here is one call of one client; the process and everybody else's calls go on. The caller learns that it
failed and nothing of the inside. Whether a write happened is not known to it, as after any INTERNAL.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from quorate.node import logs
from quorate.wire import errors
from quorate.wire.errors import CallFailed

MESSAGE: Final = "a call failed by a fault of this program"

log = logs.named("api")


def outcome(error: Exception) -> tuple[int, str]:
    """Code and text for the caller of a call that ended so: by a refusal, an unreadable request or a fault."""
    if isinstance(error, CallFailed):
        return error.error.code, error.error.text
    if isinstance(error, DecodeError):
        return errors.MALFORMED_REQUEST.code, errors.MALFORMED_REQUEST.text
    return report(error)


def report(error: BaseException, **fields: object) -> tuple[int, str]:
    """Log the fault, once for each; the code and the text that its caller is to get."""
    log.fault(MESSAGE, error, **fields)
    return errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text
