"""Faults of our own in the handling of one call: logged with their stack trace, and an error for the caller.

What fails here is one call of one client; the process and everybody else's calls go on. The caller learns that it
failed and nothing of the inside. Whether a write happened is not known to it, as after any INTERNAL.
"""

from __future__ import annotations

from typing import Final

from quorate.node import logs
from quorate.wire import errors

MESSAGE: Final = "a call failed by a fault of this program"

log = logs.named("api")


def report(error: BaseException, **fields: object) -> tuple[int, str]:
    """Log the fault, once for each; the code and the text that its caller is to get."""
    log.fault(MESSAGE, error, **fields)
    return errors.INTERNAL_FAULT.code, errors.INTERNAL_FAULT.text
