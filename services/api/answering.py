"""One answer for whoever waits: a fault of the one who takes it is that call's alone, and an answer nevertheless."""

from __future__ import annotations

import contextlib

from quorate.api import faults
from quorate.api.calling import Done
from quorate.wire import errors


def answer_one(done: Done, error_id: int, answer: bytes) -> None:
    """What came over the ring for one command: an error's number (0: none), and the answer or the error's own text."""
    try:
        if error_id:
            answer_error(done, error_id, answer)
        else:
            done(0, "", answer)
    except Exception as fault:  # whatever it is, it is this call's alone
        answer_fault(done, fault)


def answer_error(done: Done, error_id: int, text: bytes) -> None:
    """An error by its number; `text` stands for its usual one, if there is some."""
    error = errors.by_id(error_id)
    done(error.code, text.decode() or error.text, b"")


def answer_fault(done: Done, fault: Exception) -> None:
    """Who made something of the answer failed at it; whoever waits behind that passes an error on as it is."""
    with contextlib.suppress(Exception):  # the fault is in the log already
        done(*faults.report(fault), b"")
