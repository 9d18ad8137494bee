"""Defragmentation: free pages go back in slices of the size that was chosen."""

from __future__ import annotations

from pathlib import Path

from quorate.storage import vacuum
from quorate.storage.vacuum import Vacuum
from tests.storage.member import Member


def test_a_slice_gives_back_as_many_pages_as_it_may(tmp_path: Path) -> None:
    member = Member(tmp_path / "db")
    for number in range(400):
        member.put(b"k%03d" % number, bytes(8192))
    database = member.state.database
    member.state.commit()
    database.connection.execute("DELETE FROM history WHERE kv NOT NULL")
    (free,) = database.connection.execute("PRAGMA freelist_count").fetchone()
    assert free > 3 * vacuum.SLICE_PAGES
    work = Vacuum(database)
    work.request()
    slices = 0
    while work.is_due:
        work.advance()
        slices += 1
    assert -(-free // vacuum.SLICE_PAGES) == slices
    assert database.size_bytes == database.size_in_use_bytes
    assert (sum(work.seconds.counts), work.seconds.total > 0) == (1, True)
    member.close()
