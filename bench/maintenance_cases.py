"""The cases of maintenance: backups, defragmentation and new members while puts go on.

How much data there is, is `--megabytes`; a gigabyte unless something else is asked for.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from bench import engine, messages, servers
from bench.cases import Case, Context, Figures, Goal

VALUE_BYTES: Final = 8 * 1024
PAIRS_PER_MEGABYTE: Final = 2**20 // VALUE_BYTES
PAIRS_PER_TXN: Final = 7  # what fits into the window of an HTTP/2 stream
IN_FLIGHT: Final = 4
PUT_RATE: Final = 500  # puts a second whose latency shows what else the server does
FLAGS: Final = (
    *("--quota-backend-bytes", str(8 * 2**30)),
    *("--snapshot-count", "10000"),  # etcd 3.6's default: with more, older etcd sends its whole log from memory
)
CALL_S_MAX: Final = 600.0
ADDING_S: Final = 15.0  # of puts while members come and go
DEFRAGMENT_S: Final = 12.0  # of puts around a defragmentation, which has to end within it
POLITE: Final = 10  # niceness of what would be on another machine: the client of a backup, a member that comes


def _key(number: int) -> bytes:
    return b"filled/%08d" % number


def _fill(node: servers.Node, megabytes: int) -> int:
    """Write so much data, over what the keys held before; the last revision."""
    pairs = megabytes * PAIRS_PER_MEGABYTE
    revision = 0
    value = os.urandom(VALUE_BYTES)
    requests = (
        messages.txn_puts([(_key(n), value) for n in range(first, min(first + PAIRS_PER_TXN, pairs))])
        for first in range(0, pairs, PAIRS_PER_TXN)
    )
    for answer in engine.pipeline(servers.HOST, node.client_port, messages.KV_TXN, requests, IN_FLIGHT):
        revision = messages.header_revision(answer)
    return revision


def _kept(context: Context, name: str, megabytes: int) -> servers.Cluster:
    """A started node with data, made in the first round; the caller stops it."""
    cluster = context.kept.get(name)
    if cluster is None:
        cluster = servers.cluster(context.product, 1, context.parent, FLAGS)
        context.kept[name] = context.stack.enter_context(cluster)
        cluster.start()
        _fill(cluster.nodes[0], megabytes)
    else:
        cluster.start()
    return cluster


@contextmanager
def _stored(context: Context) -> Iterator[servers.Cluster]:
    """A running node with the data, the same one in all rounds."""
    cluster = _kept(context, "stored", context.megabytes)
    try:
        yield cluster
    finally:
        cluster.stop()


def _puts(node: servers.Node, seconds: float, warmup: float) -> list[str]:
    """Puts at a fixed rate beside the filled keys."""
    times = ("--seconds", str(seconds), "--warmup", str(warmup), "--rate", str(PUT_RATE))
    return ["-m", "bench.load", "put", "--endpoints", node.endpoint, "--prefix", "beside/", *times]


def download(node: servers.Node) -> int:
    """Take a backup in a process of its own and throw it away; its bytes."""
    command = ["nice", "-n", str(POLITE), sys.executable, "-m", "bench.maintenance_cases", node.endpoint]
    return int(subprocess.run(command, check=True, capture_output=True, cwd=servers.ROOT, timeout=CALL_S_MAX).stdout)


def received_bytes(endpoint: str) -> int:
    """Take a backup and throw it away; its bytes."""
    with grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return sum(len(part) for part in channel.unary_stream(messages.SNAPSHOT)(b"", timeout=CALL_S_MAX))


def _beside(context: Context, node: servers.Node, work: Callable[[], object], seconds: float) -> dict[str, float]:
    """Do something again and again while puts run: the puts' figures, and the seconds of one turn of the work."""
    turns = 0
    with servers.load_beside(_puts(node, seconds, context.warmup)) as puts:
        began = time.perf_counter()
        while puts.poll() is None:
            work()
            turns += 1
            took_s = (time.perf_counter() - began) / turns
        assert puts.stdout is not None
        figures: dict[str, float] = json.loads(puts.stdout.readlines()[-1])
    return figures | {"took_s": took_s}


def snapshot_save(context: Context) -> Figures:
    """Backups, one after the other."""
    with _stored(context) as cluster:
        node = cluster.nodes[0]
        idle = servers.load(_puts(node, context.seconds, context.warmup))
        began = time.perf_counter()
        size = download(node)
        alone_s = time.perf_counter() - began
        beside = _beside(context, node, lambda: download(node), context.seconds)
    return {
        "took_s": alone_s,
        "mib": size / 2**20,
        "idle_put_p99_ms": idle["p99_ms"],
        "put_p99_ms": beside["p99_ms"],
        "put_p99_grew": beside["p99_ms"] / idle["p99_ms"],
    }


def defragment(context: Context) -> Figures:
    """Give back half of the file while puts run."""
    cluster = _kept(context, "half", context.megabytes // 2)
    try:
        node = cluster.nodes[0]
        revision = _fill(node, context.megabytes // 2)
        node.call(messages.KV_COMPACT, messages.number(1, revision) + messages.number(2, 1))
        seconds = context.seconds if context.quick else DEFRAGMENT_S
        before = node.status()["db_size"]
        took: list[float] = []

        def once() -> None:
            if took:
                time.sleep(servers.POLL_S)
                return
            began = time.perf_counter()
            engine.call(servers.HOST, node.client_port, messages.DEFRAGMENT, b"", CALL_S_MAX)
            took.append(time.perf_counter() - began)

        beside = _beside(context, node, once, seconds)
        freed = before - node.status()["db_size"]
    finally:
        cluster.stop()
    return {
        "max_ms": beside["max_ms"],
        "p99_ms": beside["p99_ms"],
        "took_s": took[0],
        "freed_mib": freed / 2**20,
    }


def add_member(context: Context) -> Figures:
    """Members come as learners, are promoted and leave, one after the other; puts at the first member meanwhile."""
    took: list[float] = []
    with _stored(context) as cluster:
        node = cluster.nodes[0]
        idle = servers.load(_puts(node, context.seconds, context.warmup))

        def turn() -> None:
            took.append(_come_and_go(cluster, f"member{time.monotonic_ns()}"))

        beside = _beside(context, node, turn, context.seconds if context.quick else ADDING_S)
    return {
        "took_s": sum(took) / len(took),
        "idle_put_p99_ms": idle["p99_ms"],
        "put_p99_ms": beside["p99_ms"],
        "put_p99_grew": beside["p99_ms"] / idle["p99_ms"],
    }


def _come_and_go(cluster: servers.Cluster, name: str) -> float:
    """Seconds from MemberAdd until the new member votes and answers a linearizable read; it is removed again."""
    node = cluster.nodes[0]
    added = servers.newcomer(cluster, name)
    added.niceness = POLITE
    began = time.perf_counter()
    member = messages.added_member(node.call(messages.MEMBER_ADD, messages.member_add(added.peer_url.encode(), True)))
    cluster.nodes.append(added)
    try:
        added.start()
        node.wait_answer(messages.MEMBER_PROMOTE, messages.number(1, member), CALL_S_MAX)
        added.wait_answer(messages.KV_RANGE, messages.range_(b"ready"), CALL_S_MAX)
        took_s = time.perf_counter() - began
        node.wait_answer(messages.MEMBER_REMOVE, messages.number(1, member))
    finally:
        added.kill()
        cluster.nodes.remove(added)
        shutil.rmtree(added.data_dir, ignore_errors=True)
    return took_s


MAINTENANCE_CASES: Final = (
    Case(
        "snapshot-save",
        "backup of 1 GB: duration, and p99 of puts meanwhile",
        snapshot_save,
        (Goal("took_s", at_most=1.0), Goal("put_p99_grew", at_most=1.5, own=True)),
    ),
    Case(
        "defragment",
        "defragmentation of 1 GB half free: longest put meanwhile",
        defragment,
        (Goal("max_ms", at_most=50.0, own=True),),
    ),
    Case(
        "add-member",
        "a learner joins a member with 1 GB and is promoted: time, and p99 of puts meanwhile",
        add_member,
        (Goal("took_s", at_most=1.0), Goal("put_p99_grew", at_most=1.5, own=True)),
    ),
)

if __name__ == "__main__":
    print(received_bytes(sys.argv[1]))
