"""One bit turned anywhere in the files of a member: it is noticed, or it changes nothing.

What is noticed heals: the log goes aside for an empty one under a new id, the database for one made from the log. Real
members do so in `tests/cluster/test_healing.py`. `make bit-flips` turns many more bits than the sample of every run.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quorate.consensus import bootstrap
from quorate.consensus.healing import Help
from quorate.consensus.joining import Known
from quorate.consensus.membership import Member as ClusterMember
from quorate.consensus.membership import Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.messages import Entry, EntryKind, HardState
from quorate.consensus.replacing import Claim, Grant
from quorate.consensus.wal import Wal
from quorate.consensus.wal_format import HEADER_BYTES, DamagedLog
from quorate.node.config import Config
from quorate.proto import rpc_pb2
from quorate.storage import scrub
from quorate.storage.schema import DamagedDatabase, WrongFormat, tells_damage
from quorate.wire.messages import Op
from tests.crashes.disk import lay_out
from tests.crashes.test_log import scratch
from tests.storage.member import Member

FLIPS = int(os.environ.get("QUORATE_FLIPS", "600"))
SEED = int(os.environ.get("QUORATE_SEED", "1"))
SEGMENT_BYTES = 72 * 1024  # just above what is kept for hard state
FRESH_ID = 99

Image = dict[str, bytes]


def flipped(image: Image, name: str, bit: int) -> Image:
    content = bytearray(image[name])
    content[bit // 8] ^= 1 << bit % 8
    return image | {name: bytes(content)}


# --- the log ---


def log_image(directory: Path, is_closed: bool) -> Image:
    """A log of a few segments as a stop, or a crash right after an acknowledged write, leaves it."""
    rng = random.Random(SEED)
    directory.mkdir()
    members = [ClusterMember(number, (f"http://m{number}:1",), f"m{number}") for number in (1, 2, 3)]
    files = MetaFiles(directory)
    meta = Meta(1, Membership.founded(members))
    files.write(meta)
    log = Wal.create(directory, meta.membership.cluster_id, 1, SEGMENT_BYTES, fsync=False)
    for index in range(1, 30):
        entry = Entry(index, 1 + index // 10, int(EntryKind.BATCH), rng.randbytes(rng.choice((0, 40, 300))))
        log.append([entry], HardState(entry.term, 2, index - 1))
        if index in (10, 20):
            log._switch(log._positions.last())
    files.write(replace(meta, snapshot_index=0))
    log.close() if is_closed else log.abandon()
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.suffix == ".wal" or "meta" in path.name
    }


def log_content(config: Config) -> tuple[list[Entry], tuple[int, ...], Meta]:
    start = bootstrap.restart(config, SEGMENT_BYTES)
    try:
        log = start.wal
        return log.entries(log.first_index(), log.last_index + 1, 1 << 30), log.hard_state[:2], start.meta
    finally:
        start.wal.abandon()


def places(image: Image, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Bits of every file, most of them where something was written."""
    names = sorted(image)
    while True:
        name = rng.choice(names)
        content = image[name]
        used = len(content.rstrip(b"\0")) + 16
        first = HEADER_BYTES if name.endswith(".wal") and rng.random() < 0.8 else 0
        last = 100 if name.endswith(".wal") and not first else used
        yield name, rng.randrange(8 * first, 8 * min(last, len(content)))


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_bit_of_the_log_is_noticed_or_harmless_and_the_member_heals(is_closed: bool) -> None:
    outcomes: Counter[str] = Counter()
    rng = random.Random(SEED)
    with scratch() as directory:
        image = log_image(directory / "whole", is_closed)
        config = Config(
            data_dir=str(directory / "data"),
            name="m1",
            initial_cluster="m1=http://m1:1,m2=http://m2:1",
            unsafe_no_fsync=True,
        )
        lay_out(image, config.wal_path)
        wanted = log_content(config)
        for name, bit in places(image, rng):
            if outcomes.total() >= FLIPS * 3 // 8:
                break
            lay_out(flipped(image, name, bit), config.wal_path)
            try:
                found = log_content(config)
            except DamagedLog:
                outcomes["healed"] += 1
                check_healing(config, wanted[2].membership)
            else:
                assert wanted == found, f"bit {bit} of {name} was not noticed"
                outcomes["harmless"] += 1
    print(dict(outcomes))
    assert outcomes["healed"] > outcomes.total() // 3


def check_healing(config: Config, membership: Membership) -> None:
    """The member begins anew under the id it is given, and what was damaged is kept."""
    others = tuple(member for member in membership.members.values() if member.id != 1)

    def ask(_url: str, claim: Claim) -> Grant:
        assert claim.lost_id in (0, 1)
        assert claim.cluster_id in (0, membership.cluster_id)
        return Grant(membership.cluster_id, FRESH_ID, True, others)

    def nobody(_url: str, _timeout: float) -> Known:
        raise OSError

    start = bootstrap.start(config, nobody, SEGMENT_BYTES, Help(ask))
    assert (FRESH_ID, 0) == (start.meta.member_id, start.wal.last_index)
    assert start.wal.member_id == FRESH_ID
    start.wal.abandon()
    assert list((config.wal_path / "quarantine").iterdir())


# --- the database ---

CELL_BYTES = 32  # the columns before and with a key
TABLES = ("history", "state", "lease", "renewal", "attachment", "alarm", "auth")


def database_image(directory: Path) -> tuple[Image, dict[str, Any]]:
    """A database with something in every table, and what is in it."""
    path = directory / "whole" / "db"
    rng = random.Random(SEED)
    member = Member(path)
    for lease in (7, 8):
        member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(TTL=600, ID=lease))
    for _ in range(60):
        member.put(b"key/%d" % rng.randrange(25), rng.randbytes(rng.choice((3, 90, 2500))), lease=rng.choice((0, 0, 7)))
    member.delete(b"key/3")
    member.compact(20)
    member.apply(Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="role"))
    alarm = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=5, alarm=rpc_pb2.NOSPACE)
    member.apply(Op.ALARM, alarm)
    member.state.commit()
    member.close()
    return {"db": path.read_bytes()}, dump(path)


def dump(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def recovered_dump(path: Path) -> dict[str, Any]:
    """As a start does it: open everything, read everything; DamagedDatabase, or what is there."""
    member = Member.__new__(Member)
    member.path, member.quota_bytes, member.term, member.now, member.log = path, None, 3, 1000.0, []
    try:
        member.open()
        member.close()
        scrub.verify(path)
    except sqlite3.DatabaseError as error:
        if not tells_damage(error):
            raise
        raise DamagedDatabase(str(error)) from error
    return dump(path)


def test_a_bit_of_the_database_is_noticed_or_harmless() -> None:
    outcomes: Counter[str] = Counter()
    rng = random.Random(SEED)
    unnoticed = []
    with scratch() as directory:
        image, wanted = database_image(directory)
        cells = [found.start() - CELL_BYTES + 6 for found in re.finditer(rb"key/", image["db"])]
        place = directory / "image"
        while outcomes.total() < FLIPS // 4:
            if rng.random() < 0.5:
                bit = 8 * rng.choice(cells) + rng.randrange(8 * CELL_BYTES)
            else:
                bit = rng.randrange(8 * len(image["db"]))
            lay_out(flipped(image, "db", bit), place)
            try:
                found = recovered_dump(place / "db")
            except WrongFormat:
                unnoticed.append((bit, ["taken for another version"]))
            except DamagedDatabase:
                outcomes["healed"] += 1
            else:
                if found == wanted:
                    outcomes["harmless"] += 1
                    continue
                outcomes["unnoticed"] += 1
                unnoticed.append((bit, [table for table in TABLES if found[table] != wanted[table]]))
    print(dict(outcomes), unnoticed[:10])
    assert not unnoticed
