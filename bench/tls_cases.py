"""The cases with TLS: what it costs a call, and how many new connections a second a node takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from bench import certificates, servers
from bench.cases import Case, Context, Figures, Goal
from bench.certificates import Files


@contextmanager
def _encrypted(context: Context) -> Iterator[tuple[servers.Cluster, Files]]:
    """One node that demands certificates of its clients, and the files of one."""
    with servers.cluster(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        flags, files = certificates.make(cluster.directory / "certificates", (servers.HOST,))
        plain, encrypted = f"http://{node.endpoint}", f"https://{node.endpoint}"
        node.flags = (*(encrypted if word == plain else word for word in node.flags), *flags)
        node.context = files.context()
        cluster.start()
        yield cluster, files


def encrypted(context: Context, workload: str) -> Figures:
    """A workload over connections with certificates on both sides."""
    with _encrypted(context) as (cluster, files):
        times = ("--seconds", str(context.seconds), "--warmup", str(context.warmup))
        endpoint = ("--endpoints", cluster.nodes[0].endpoint)
        return servers.load(["-m", "bench.load", workload, *endpoint, *times, *files.arguments()])


def handshakes(context: Context) -> Figures:
    """A new connection for each put, certificates on both sides."""
    with _encrypted(context) as (cluster, files):
        times = ("--seconds", str(context.seconds), "--warmup", str(context.warmup))
        endpoint = ("--endpoint", cluster.nodes[0].endpoint)
        return servers.load(["-m", "bench.handshakes", *endpoint, *times, *files.arguments()])


TLS_CASES: Final = (
    Case(
        "tls-put-1",
        "mutual TLS, one node, 100 connections: put",
        partial(encrypted, workload="put"),
        (Goal("throughput", at_least=1.0),),
    ),
    Case(
        "tls-range-1",
        "mutual TLS, one node, 100 connections: linearizable range of one key",
        partial(encrypted, workload="range"),
        (Goal("throughput", at_least=1.2),),
    ),
    Case(
        "handshakes",
        "mutual TLS, one node, 16 clients with a new connection for each put",
        handshakes,
        (Goal("throughput", at_least=0.7),),
    ),
)
