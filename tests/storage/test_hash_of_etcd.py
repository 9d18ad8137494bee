"""HashKV against a real etcd with the same history; skipped where no etcd is installed."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from bench.ports import free_port
from quorate.proto import rpc_pb2
from quorate.wire.messages import Op
from tests.storage.member import Member

KV = "/etcdserverpb.KV/"


class Etcd:
    """A real etcd of one member, driven by raw gRPC."""

    def __init__(self, directory: Path) -> None:
        client, peer = free_port(), free_port()
        self._process = subprocess.Popen(
            [
                "etcd",
                f"--data-dir={directory}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                "--log-level=error",
            ]
        )
        self._channel = grpc.insecure_channel(f"127.0.0.1:{client}")

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.call(f"{KV}Range", rpc_pb2.RangeRequest(key=b"a"))
                return
            except grpc.RpcError:
                assert time.monotonic() < deadline, "etcd did not start"
                time.sleep(0.05)

    def call(self, method: str, request: Message) -> None:
        call = self._channel.unary_unary(method, request_serializer=lambda message: message.SerializeToString())
        call(request, timeout=5)

    def hash(self, revision: int = 0) -> rpc_pb2.HashKVResponse:
        call = self._channel.unary_unary(
            "/etcdserverpb.Maintenance/HashKV",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc_pb2.HashKVResponse.FromString,
        )
        response: rpc_pb2.HashKVResponse = call(rpc_pb2.HashKVRequest(revision=revision), timeout=5)
        return response

    def close(self) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    directory = Path(tempfile.mkdtemp())
    made = Etcd(directory)
    try:
        made.wait()
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


def test_the_hash_of_a_history_is_the_one_etcd_computes(etcd: Etcd, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    member = Member(tmp_path / "db")
    ops = {Op.PUT: "Put", Op.DELETE_RANGE: "DeleteRange", Op.TXN: "Txn"}
    for _ in range(200):
        key = b"k%d" % dice.randrange(20)
        op = dice.choice([Op.PUT, Op.PUT, Op.PUT, Op.DELETE_RANGE, Op.TXN])
        request: Any
        if op is Op.PUT:
            request = rpc_pb2.PutRequest(key=key, value=dice.randbytes(dice.randrange(200)))
        elif op is Op.DELETE_RANGE:
            request = rpc_pb2.DeleteRangeRequest(key=key, range_end=key + b"5")
        else:
            request = rpc_pb2.TxnRequest()
            for name in (b"t1", b"t2"):
                request.success.add().request_put.key = name
        etcd.call(KV + ops[op], request)
        member.apply(op, request)
    member.put(b"last")
    etcd.call(f"{KV}Put", rpc_pb2.PutRequest(key=b"last"))
    revision = member.state.store.revision
    for at in (0, revision, revision // 2, 2):
        assert etcd.hash(at).hash == member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest(revision=at)).hash
    # Compact at a put: whether a tombstone exactly there is kept differs between etcd's releases.
    compact_revision = revision // 2
    while not member.range(b"\0", b"\0", revision=compact_revision, min_mod_revision=compact_revision).kvs:
        compact_revision += 1
    etcd.call(f"{KV}Compact", rpc_pb2.CompactionRequest(revision=compact_revision, physical=True))
    member.compact(compact_revision, physical=True)
    for at in (0, revision - 3, compact_revision + 1):
        theirs = etcd.hash(at)
        ours = member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest(revision=at))
        assert (theirs.hash, theirs.compact_revision) == (ours.hash, ours.compact_revision)
    member.close()
