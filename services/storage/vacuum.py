"""Giving free pages back to the file system: Defragment as slices between two batches, while everything goes on."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from quorate.storage.buckets import Buckets
from quorate.storage.database import Database, room_for
from quorate.storage.schema import PAGE_BYTES

SLICE_PAGES: Final = 128  # half a megabyte: a millisecond or two


class Vacuum:
    """Moves pages from the end of the file into free ones and cuts it, until no page is free."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_due = False
        self.seconds = Buckets(0.1, 2, 13)  # from the request until nothing was free
        self._began = 0.0

    def request_at_start(self, threshold_bytes: int) -> bool:
        """Begin if at least so much would be given back; 0 means never. Whether it begins."""
        self._database.measure()
        free_bytes = self._database.size_bytes - self._database.size_in_use_bytes
        if threshold_bytes and free_bytes >= threshold_bytes:
            self.request()
        return self.is_due

    def request(self) -> None:
        """Begin, or go on, until nothing is free."""
        if not self.is_due:
            self._began = perf_counter()
        self.is_due = True

    def give_up(self) -> None:
        """Leave what is free where it is."""
        self.is_due = False

    def advance(self) -> None:
        """Do one slice and commit it; the caller has committed what was pending. DiskFull when there is no room."""
        connection = self._database.connection
        with room_for(self._database.path):
            connection.executescript(
                f"PRAGMA incremental_vacuum({SLICE_PAGES})"
            )  # `execute` ends behind the first page
        self._database.note_written(SLICE_PAGES * PAGE_BYTES)
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        self.is_due = free > 0
        if not self.is_due:
            self.seconds.add(perf_counter() - self._began)
        self._database.measure()
