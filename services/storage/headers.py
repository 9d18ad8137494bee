"""Response headers as bytes: who answers, at which revision, in which term (contract 4.2)."""

from __future__ import annotations

from typing import Final

from quorate.storage.records import MOD_TAG, integer_field, varint
from quorate.wire import errors
from quorate.wire.errors import EtcdError
from quorate.wire.messages import RESULT, pack_result

REVISION_TAG: Final = MOD_TAG  # field 3 of ResponseHeader and of KeyValue alike: the same bytes serve both
HEADER_TAG: Final = b"\x0a"
EMPTY_HEADER: Final = b"\x0a\x00"  # of a nested TxnResponse

_LENGTHS: Final = [bytes((n,)) for n in range(128)]


class Headers:
    """Makes the header field of responses. Until START the ids are unknown and left out."""

    def __init__(self) -> None:
        self.cluster_id = 0
        self.member_id = 0
        self.term = 0
        self._ids = b""
        self._term_field = b""
        self._cached = (0, b"")

    def identify(self, cluster_id: int, member_id: int) -> None:
        """Learn whose answers these are."""
        self.cluster_id = cluster_id
        self.member_id = member_id
        self._ids = integer_field(b"\x08", cluster_id) + integer_field(b"\x10", member_id)
        self._cached = (0, b"")

    def reach_term(self, term: int) -> None:
        """The term of the last applied entry."""
        if term != self.term:
            self.term = term
            self._term_field = integer_field(b"\x20", term)
            self._cached = (0, b"")

    def of_change(self, revision_field: bytes) -> bytes:
        """The header of an answer whose revision is already encoded."""
        header = self._ids + revision_field + self._term_field
        return HEADER_TAG + _LENGTHS[len(header)] + header

    def at(self, revision: int) -> bytes:
        """The header of an answer at this revision."""
        cached, header = self._cached
        if cached != revision:
            header = self.of_change(REVISION_TAG + varint(revision))
            self._cached = (revision, header)
        return header


def nested(revision: int) -> bytes:
    """The header of a response inside a TxnResponse: the revision alone."""
    header = REVISION_TAG + varint(revision)
    return HEADER_TAG + _LENGTHS[len(header)] + header


def answered(body: bytes) -> bytes:
    """A successful result."""
    return RESULT.pack(0, len(body)) + body


def failed(error: EtcdError) -> bytes:
    """A failed result with the catalogue's text."""
    return pack_result(error.id, b"")


class OutOfSpace:
    """A refusal for want of room. It leaves when this member's alarm is on, so that who is refused finds the alarm."""

    __slots__ = ()


MALFORMED: Final = failed(errors.MALFORMED_REQUEST)
UNKNOWN: Final = failed(errors.UNKNOWN_METHOD)
