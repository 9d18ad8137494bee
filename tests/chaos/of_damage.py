"""Faults of what is stored: bits that turn, files that are cut or lost, on one member at a time, which heals itself.

What heals takes a majority of members that forgot nothing, so the next member is damaged only when the last one votes
again and everything it has was read over. A log of a killed member gets single bits turned and is never cut at its end:
that would look like a write that did not complete, and what is missing there is nothing a server can know.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc

from quorate.proto import rpc_pb2
from tests.chaos.cluster import Battlefield, Member
from tests.chaos.faults import NotNow, anyone_free, fault

Damage = Callable[[Path, random.Random], str]  # of the directory `member`; says what was done

READ_OVER_S: Final = 3.0  # after a start the database is read over in the background
POLL_S: Final = 0.3
LOG_HEADER_BYTES: Final = 4096
BITS_MAX: Final = 20


def turn_bits_of_log(member: Path, dice: random.Random) -> str:
    """One in each of some segments, within what was written."""
    segments = _segments(member)
    if not segments:
        raise NotNow
    chosen = dice.sample(segments, dice.randrange(1, min(3, len(segments)) + 1))
    for path in chosen:
        _turn(path, dice.randrange(8 * max(LOG_HEADER_BYTES, len(path.read_bytes().rstrip(b"\0")))))
    return f"a bit of {' '.join(path.name for path in chosen)}"


def lose_segment(member: Path, dice: random.Random) -> str:
    """One that is not the last."""
    segments = _segments(member)
    if len(segments) < 2:
        raise NotNow
    path = dice.choice(segments[:-1])
    if dice.random() < 0.3:
        path.unlink()
        return f"{path.name} is gone"
    size = dice.randrange(len(path.read_bytes().rstrip(b"\0")))
    os.truncate(path, size)
    return f"{path.name} cut to {size} bytes"


def lose_membership(member: Path, dice: random.Random) -> str:
    copies = sorted((member / "wal").glob("meta.*"))
    if not copies:
        raise NotNow
    for path in copies:
        _turn(path, dice.randrange(8 * path.stat().st_size))
    return "a bit of each copy of the membership"


def turn_bits_of_database(member: Path, dice: random.Random) -> str:
    path, bits = _database(member), dice.randrange(1, BITS_MAX)
    for _ in range(bits):
        _turn(path, dice.randrange(8 * path.stat().st_size))
    return f"{bits} bits of the database"


def cut_database(member: Path, dice: random.Random) -> str:
    path = _database(member)
    size = dice.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"the database cut to {size} bytes"


DAMAGES: Final[dict[str, Damage]] = {
    "bits of the log turn": turn_bits_of_log,
    "a segment of the log is lost": lose_segment,
    "the membership is lost": lose_membership,
    "bits of the database turn": turn_bits_of_database,
    "the database is cut": cut_database,
}


def _three(field: Battlefield) -> str:
    return "" if len(field.nodes) >= 3 else "fewer than three members do not heal"


async def damage_stopped(damage: Damage, field: Battlefield, dice: random.Random, seconds: float) -> None:
    """While the node is down; it comes back at once."""
    node = _victim(field, dice)
    async with field.renewal:
        with _excused(node):
            async with node.busy:
                await asyncio.to_thread(node.stop if dice.random() < 0.5 else node.kill)
                try:
                    what = await asyncio.to_thread(damage, node.data_dir / "member", dice)
                    field.note(f"damage to {node.name}: {what}")
                finally:
                    node.start()
            await _until_healed(field, node)


async def damage_running(damage: Damage, field: Battlefield, dice: random.Random, seconds: float) -> None:
    """Under the running node, which may or may not come across it; after a while it is started anew."""
    node = _victim(field, dice)
    async with field.renewal:
        with _excused(node):
            async with node.busy:
                try:
                    what = await asyncio.to_thread(damage, node.data_dir / "member", dice)
                    field.note(f"damage to {node.name}, which runs: {what}")
                    await asyncio.sleep(seconds)
                finally:
                    await asyncio.to_thread(node.kill)
                    node.start()
            await _until_healed(field, node)


for _name, _damage in DAMAGES.items():
    fault(_name, _three)(partial(damage_stopped, _damage))
fault("bits of the log turn under a running member", _three)(partial(damage_running, turn_bits_of_log))
fault("bits of the database turn under a running member", _three)(partial(damage_running, turn_bits_of_database))


def _victim(field: Battlefield, dice: random.Random) -> Member:
    if field.renewal.locked():
        raise NotNow  # one after the other
    return anyone_free(field, dice)


@contextmanager
def _excused(node: Member) -> Iterator[None]:
    """It may end, and say why."""
    node.may_trace = True
    node.stopped_by.append("damage")
    try:
        yield
    finally:
        node.stopped_by.remove("damage")


async def _until_healed(field: Battlefield, node: Member) -> None:
    """Return when the member votes and says that nothing is wrong with it."""
    await asyncio.sleep(READ_OVER_S)
    began = asyncio.get_running_loop().time()
    while not await _is_healed(field, node):  # noqa: ASYNC110 - the state of another process
        await asyncio.sleep(POLL_S)
    field.note(f"{node.name} has healed, {asyncio.get_running_loop().time() - began:.1f} s later")


async def _is_healed(field: Battlefield, node: Member) -> bool:
    status = await field.status(node)
    if status is None or any(error.startswith("quorate:") for error in status.errors):
        return False
    members = await field.members([other for other in field.nodes if other is not node])
    mine = next((member for member in members or () if member.ID == status.header.member_id), None)
    if mine is None or mine.isLearner:
        return False
    field.network.know(mine.ID, field.nodes.index(node))
    put = rpc_pb2.PutRequest(key=b"healed", value=node.name.encode())
    try:
        await field.callers[node.name].unary("KV/Put", put, 3.0)
    except grpc.RpcError:
        return False
    return True


def _segments(member: Path) -> list[Path]:
    return sorted((member / "wal").glob("*-*.wal"))


def _database(member: Path) -> Path:
    """The file; a member that has just begun has none yet."""
    path = member / "snap" / "db"
    if not path.exists() or not path.stat().st_size:
        raise NotNow
    return path


def _turn(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes((byte ^ 1 << bit % 8,)))
