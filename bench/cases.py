"""Every case of the benchmark: how it is measured, and what Quorate is to reach.

A measurement returns named figures. Throughputs are per second, times in milliseconds, memory in MiB.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from bench import engine, messages, servers

Figures = Mapping[str, float]

LIST_KEYS: Final = 1_000_000
LIST_KEYS_QUICK: Final = 20_000
LIST_PREFIX: Final = b"list/"
PUTS_PER_TXN: Final = 100
TXNS_IN_FLIGHT: Final = 8
BIG_QUOTA: Final = ("--quota-backend-bytes", str(8 * 2**30))
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table: a figure, and its bound.

    The bound is for the ratio candidate / baseline; with `own` it is for the candidate's figure itself.
    """

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    own: bool = False

    def met(self, value: float) -> bool:
        """Whether a value (ratio or figure) keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(slots=True)
class Context:
    """One server under test, for how long, and what is kept for it between rounds."""

    product: servers.Product
    parent: Path
    seconds: float
    warmup: float
    quick: bool
    megabytes: int = 1024  # of data in the cases of maintenance
    kept: dict[str, servers.Cluster] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Case:
    """A workload and its goals."""

    name: str
    title: str
    measure: Callable[[Context], Figures]
    goals: tuple[Goal, ...]


def unary(context: Context, workload: str, nodes: int, spread: bool = False, connections: int = 100) -> Figures:
    """One workload of the load generator against a fresh cluster, at the leader or over all members."""
    with servers.running(context.product, nodes, context.parent) as cluster:
        endpoints = cluster.endpoints if spread else [cluster.leader().endpoint]
        cpu_before = cluster.usage().cpu_seconds
        figures = servers.load(
            [
                *("-m", "bench.load", workload, "--endpoints", *endpoints),
                *("--connections", str(connections)),
                *("--seconds", str(context.seconds), "--warmup", str(context.warmup)),
            ]
        )
        cpu = cluster.usage().cpu_seconds - cpu_before
    calls = figures["throughput"] * (context.seconds + context.warmup)
    return figures | {"server_cpu_us": cpu / calls * 1e6 if calls else 0.0}


def list_key(number: int) -> bytes:
    """A 32-byte key under the prefix that is listed."""
    return b"%b%0*d" % (LIST_PREFIX, 32 - len(LIST_PREFIX), number)


def preload(node: servers.Node, keys: int) -> None:
    """Put keys with 256-byte values, many in each transaction."""
    value = bytes(range(256))
    txns = (
        messages.txn_puts([(list_key(n), value) for n in range(first, min(first + PUTS_PER_TXN, keys))])
        for first in range(0, keys, PUTS_PER_TXN)
    )
    for _ in engine.pipeline(servers.HOST, node.client_port, messages.KV_TXN, txns, TXNS_IN_FLIGHT):
        pass


def big_data(context: Context) -> Figures:
    """Restart a node that holds many keys, ask it once, list, and weigh it."""
    loaded: dict[str, float] = {}
    cluster = context.kept.get("big")
    if cluster is None:
        cluster = servers.cluster(context.product, 1, context.parent, BIG_QUOTA)
        context.kept["big"] = context.stack.enter_context(cluster)
        cluster.start()
        began = time.perf_counter()
        preload(cluster.nodes[0], LIST_KEYS_QUICK if context.quick else LIST_KEYS)
        loaded = {
            "load_s": time.perf_counter() - began,
            "loaded_rss_mib": cluster.usage().rss_bytes / MIB,
        }
        cluster.stop()
    node = cluster.nodes[0]
    began = time.perf_counter()
    node.start()
    node.wait_answer(messages.KV_RANGE, messages.range_(list_key(0)))
    first_answer = time.perf_counter() - began
    figures = servers.load(
        [
            *("-m", "bench.load", "list", "--prefix", LIST_PREFIX.decode(), "--endpoints", node.endpoint),
            *("--connections", "1", "--seconds", str(context.seconds), "--warmup", str(context.warmup)),
        ]
    )
    used = cluster.usage()
    cluster.stop()
    return {
        "p50_ms": figures["p50_ms"],
        "p99_ms": figures["p99_ms"],
        "first_answer_ms": first_answer * 1e3,
        "rss_mib": used.rss_bytes / MIB,
        "pss_mib": used.pss_bytes / MIB,
        **loaded,
    }


def _loaded(name: str, title: str, workload: str, nodes: int, throughput: float, p99: float | None) -> Case:
    goals = [Goal("throughput", at_least=throughput)]
    if p99 is not None:
        goals.append(Goal("p99_ms", at_most=p99))
    return Case(name, title, partial(unary, workload=workload, nodes=nodes), tuple(goals))


CASES: Final = (
    _loaded("put-1", "one node, 100 connections: put", "put", 1, 1.6, 0.6),
    _loaded("range-1", "one node, 100 connections: linearizable range of one key", "range", 1, 1.6, 0.6),
    _loaded("put-3", "three nodes, 100 connections at the leader: put", "put", 3, 1.5, 0.6),
    _loaded("range-3", "three nodes, 100 connections at the leader: linearizable range", "range", 3, 1.6, 0.6),
    Case(
        "put-3-all",
        "three nodes, 100 connections over all members: put",
        partial(unary, workload="put", nodes=3, spread=True),
        (Goal("throughput", at_least=1.2),),
    ),
    Case(
        "range-3-all",
        "three nodes, 100 connections over all members: linearizable range",
        partial(unary, workload="range", nodes=3, spread=True),
        (Goal("throughput", at_least=1.5),),
    ),
    _loaded("txn-3", "three nodes, 100 connections: txn (one compare, one put)", "txn", 3, 1.2, None),
    Case(
        "put-3-one",
        "three nodes, one connection: put",
        partial(unary, workload="put", nodes=3, connections=1),
        (Goal("p50_ms", at_most=1.5),),
    ),
    Case(
        "range-3-one",
        "three nodes, one connection: linearizable range",
        partial(unary, workload="range", nodes=3, connections=1),
        (Goal("p50_ms", at_most=2.0),),
    ),
    Case(
        "json-put-1",
        "one node, 50 connections: put through the JSON gateway",
        partial(unary, workload="json-put", nodes=1, connections=50),
        (Goal("throughput", at_least=0.8),),
    ),
    Case(
        "million-keys",
        "1,000,000 keys of 32 bytes, 256-byte values: `limit=100` list of them all",
        big_data,
        (
            Goal("p50_ms", at_most=0.02),
            Goal("rss_mib", at_most=0.6),
            Goal("loaded_rss_mib", at_most=0.6),
            Goal("first_answer_ms", at_most=0.6),
        ),
    ),
)
