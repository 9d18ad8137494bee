"""Mistakes that etcd made where reads, defragmentation and images meet; docs/testing.md has the whole list."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from quorate.proto import rpc_pb2
from quorate.storage import snapshot
from quorate.storage.history import History
from quorate.wire.messages import IMAGE, Kind, Op, pack_command, unpack_results
from quorate.wire.watching import HISTORY_READ
from tests.storage.test_service import Ring, get, put, ring

__all__ = ["ring"]
WITHIN_S = 5.0


def test_an_image_that_arrives_while_the_database_is_defragmented_replaces_all_of_it(ring: Ring) -> None:
    """etcd #20650, #20271: the defragmentation put its file over the one of the image."""
    ring.entry(put(b"kept", b"in the image"))
    ring.results()
    ring.consensus.channel.send(Kind.IMAGE_TAKE)
    ring.until(lambda: ring.consensus.of(Kind.IMAGE_TAKEN))
    (body,) = ring.consensus.of(Kind.IMAGE_TAKEN)
    image = Path(body[IMAGE.size :].decode())
    arrived = image.with_name("arrived.db")
    arrived.write_bytes(image.read_bytes())
    fill_and_free(ring)
    ring.read(pack_command(Op.DEFRAGMENT, b""), number=8, kind=Kind.LOCAL)
    ring.until(lambda: ring.service.vacuum.is_due)
    before = ring.state.database.size_bytes
    ring.service.turn(0)
    assert ring.service.vacuum.is_due, "the defragmentation is under way"
    assert ring.state.database.size_bytes < before
    ring.consensus.channel.send(Kind.IMAGE_INSTALL, body[: IMAGE.size] + str(arrived).encode())
    ring.until(lambda: ring.service.is_stopping)
    assert ring.service.images.to_install == arrived
    ring.stop_storage()
    snapshot.install(arrived, ring.state.database.path)
    with closing(sqlite3.connect(ring.state.database.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for each in ring.neighbours:
        each.hellos = []
    ring.start_storage()
    ring.until(ring.all_have_met)
    ring.index = 1
    ring.start()
    ring.api.heard = []
    ring.entry(put(b"new", b"behind the image"), number=9)
    ring.read(get(b"\0", b"\0"), number=10)
    results = {number: found[0][1] for number, _, _, found in ring.results(2)}
    response = rpc_pb2.RangeResponse.FromString(results[10])
    assert {pair.key: pair.mod_revision for pair in response.kvs} == {b"kept": 2, b"new": 3}


def fill_and_free(ring: Ring) -> None:
    """Several slices of free pages."""
    for number in range(10):
        ring.entry(*[put(b"k%d" % number, b"v" * 4000)] * 100)
    ring.results(10)
    revision = ring.state.store.revision
    ring.entry(pack_command(Op.COMPACT, rpc_pb2.CompactionRequest(revision=revision).SerializeToString()))
    ring.results()
    ring.read(pack_command(Op.COMPACTED, revision.to_bytes(8, "little")), number=5, kind=Kind.LOCAL)
    ring.results()


def test_a_read_of_history_that_takes_long_holds_up_neither_writes_nor_reads_nor_events(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd #22264: writes waited for nine tenths of the time while a watcher caught up."""
    go_on = threading.Event()
    begun = threading.Event()
    read = History.read

    def slow(history: History) -> bytes:
        begun.set()
        assert go_on.wait(WITHIN_S), "storage waits for the read"
        return read(history)

    monkeypatch.setattr(History, "read", slow)
    try:
        ring.entry(put(b"a", b"1"))
        ring.results()
        question = HISTORY_READ.pack(1, 2, 2, 1000, 1 << 20, False, 1) + b"a"
        ring.watch.channel.send(Kind.HISTORY_READ, question)
        ring.until(begun.is_set)
        for number in range(20):
            ring.entry(put(b"a", b"%d" % number), number=number)
            ring.read(get(b"a"), number=100 + number)
            ring.until(lambda: sum(len(unpack_results(body)[3]) for body in ring.api.of(Kind.RESULTS)) == 2)
            ring.api.heard = []
        ring.until(lambda: not ring.state.is_dirty)
        ring.until(lambda: len(ring.watch.of(Kind.EVENTS)) >= 21)
        assert not ring.watch.of(Kind.HISTORY)
    finally:
        go_on.set()
    ring.until(lambda: ring.watch.of(Kind.HISTORY))
