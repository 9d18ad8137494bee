"""The real process: started as supervisor starts it, killed at any moment, fed from a log as consensus does."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quorate.node import config as configuration
from quorate.node.config import Config
from quorate.proto import rpc_pb2
from quorate.storage import schema
from quorate.wire.errors import CallFailed
from quorate.wire.messages import (
    ENTRY,
    START,
    STORAGE_HELLO,
    EntryKind,
    Kind,
    Op,
    Origin,
    Part,
    pack_chunk,
    pack_command,
    unpack_results,
)
from quorate.wire.sockets import Address
from tests.storage.test_service import Neighbour
from tests.storage.twin import Twin

CLUSTER_ID, MEMBER_ID = 11, 22
OPS: dict[type, int] = {
    rpc_pb2.PutRequest: Op.PUT,
    rpc_pb2.DeleteRangeRequest: Op.DELETE_RANGE,
    rpc_pb2.CompactionRequest: Op.COMPACT,
}


class Process:
    """`python -m quorate.storage` with consensus and one api worker played by the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        config = Config(data_dir=str(directory / "data"), run_dir=str(directory / "run"), log_level="warn")
        config.run_path.mkdir(mode=0o700, parents=True)
        self.config = config
        self.config_path = directory / "config.json"
        configuration.render(config, self.config_path)
        self.log: list[bytes] = []
        self.consensus = Neighbour(config.run_path, Address(Part.CONSENSUS))
        self.api = Neighbour(config.run_path, Address(Part.API))
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and give it what its hello asks for."""
        self.consensus.hellos = []
        self.api.hellos = []
        environment = dict(os.environ, QUORATE_CONFIG=str(self.config_path))
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.running = subprocess.Popen([sys.executable, "-m", "quorate.storage"], env=environment)
        self.until(lambda: self.consensus.hellos and self.api.hellos)
        applied, _ = STORAGE_HELLO.unpack(self.consensus.hellos[0])
        self.consensus.channel.send(Kind.START, START.pack(CLUSTER_ID, MEMBER_ID, applied + 1, len(self.log)))
        for index in range(applied, len(self.log)):
            self._send(index)

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.running is not None
        self.running.send_signal(number)
        return self.running.wait(30)

    def append(self, requests: list[Any]) -> None:
        """One more entry of the log."""
        commands = [pack_command(OPS[type(each)], each.SerializeToString()) for each in requests]
        origin = Origin(MEMBER_ID, self.api.endpoint.incarnation, 0)
        self.log.append(pack_chunk(origin, len(self.log), commands))
        self._send(len(self.log) - 1)

    def ask(self, op: int, request: Any, number: int) -> bytes:
        origin = Origin(MEMBER_ID, self.api.endpoint.incarnation, 0)
        command = pack_command(op, request.SerializeToString())
        self.consensus.channel.send(Kind.READ, pack_chunk(origin, number, [command]))
        self.until(lambda: number in self.answered())
        ((error_id, body),) = self.answered()[number]
        assert not error_id
        return body

    def answered(self) -> dict[int, list[tuple[int, bytes]]]:
        return {number: results for number, _, _, results in map(unpack_results, self.api.of(Kind.RESULTS))}

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            self.turn()
            self.consensus.endpoint.wait(1)

    def turn(self) -> None:
        self.consensus.turn()
        self.api.turn()

    def close(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.kill()
        self.consensus.endpoint.close()
        self.api.endpoint.close()

    def _send(self, index: int) -> None:
        self.consensus.channel.send(Kind.ENTRY, ENTRY.pack(index + 1, 3, EntryKind.BATCH), self.log[index])


@pytest.fixture
def process() -> Iterator[Process]:
    directory = Path(tempfile.mkdtemp())
    made = Process(directory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def random_requests(dice: random.Random, revision: int) -> list[Any]:
    requests: list[Any] = []
    for _ in range(dice.randint(1, 40)):
        key = b"k%03d" % dice.randrange(200)
        kind = dice.random()
        if kind < 0.9:
            requests.append(rpc_pb2.PutRequest(key=key, value=dice.randbytes(dice.randrange(400))))
        elif kind < 0.99:
            requests.append(rpc_pb2.DeleteRangeRequest(key=key, range_end=key + b"\xff"))
        else:
            requests.append(rpc_pb2.CompactionRequest(revision=dice.randint(0, revision)))
    return requests


def test_killed_again_and_again_under_a_stream_of_entries_it_ends_where_its_twin_does(process: Process) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    twin = Twin()
    for round_ in range(5):
        process.start()
        for _ in range(dice.randrange(5, 120)):
            requests = random_requests(dice, twin.revision)
            for request in requests:
                apply_to(twin, request)
            process.append(requests)
            process.turn()
        if round_ % 2:
            process.until(lambda: len(process.log) - 1 in process.answered())
        process.kill()
    process.start()
    body = process.ask(Op.RANGE, rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"), number=1 << 20)
    actual = rpc_pb2.RangeResponse.FromString(body)
    expected = twin.range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    assert expected.header.revision == actual.header.revision
    assert list(expected.kvs) == list(actual.kvs)


def apply_to(twin: Twin, request: Any) -> None:
    try:
        twin.apply(request)
    except CallFailed:
        assert isinstance(request, rpc_pb2.CompactionRequest)


def test_asked_to_stop_it_writes_everything_and_ends(process: Process) -> None:
    process.start()
    process.append([rpc_pb2.PutRequest(key=b"a")])
    process.until(lambda: 0 in process.answered())
    assert 0 == process.kill(signal.SIGTERM)
    assert not Path(f"{process.config.database_path}-wal").exists()
    process.start()
    assert (1, 0) == STORAGE_HELLO.unpack(process.consensus.hellos[0])


def test_a_damaged_database_goes_aside_and_an_empty_one_takes_its_place(process: Process) -> None:
    path = process.config.database_path
    path.parent.mkdir(parents=True)
    damaged = b"these are not the pages of a database" * 200
    path.write_bytes(damaged)
    process.start()
    assert (0, 1) == STORAGE_HELLO.unpack(process.consensus.hellos[0])
    (kept,) = (path.parent / "quarantine").glob("*/db")
    assert damaged == kept.read_bytes()


def test_a_database_of_another_format_ends_the_process_with_one_sentence(process: Process) -> None:
    path = process.config.database_path
    with closing(schema.open_writer(path)) as connection:
        connection.execute("DROP TABLE history")
        connection.execute("PRAGMA user_version = 99")
    environment = dict(os.environ, QUORATE_CONFIG=str(process.config_path), PYTHONPATH=os.pathsep.join(sys.path))
    ended = subprocess.run([sys.executable, "-m", "quorate.storage"], env=environment, capture_output=True, timeout=30)
    assert 1 == ended.returncode
    sentence = (process.config.run_path / "fatal").read_text()
    assert f"the database {path} has format 99, this program reads format {schema.VERSION}" == sentence
    assert path.exists()
