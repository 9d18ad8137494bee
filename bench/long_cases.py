"""The cases with watches and leases."""

import json
import subprocess
from collections.abc import Sequence
from typing import Final

from bench import messages, servers
from bench.cases import MIB, Case, Context, Figures, Goal

WATCHERS: Final = 100_000
WATCHERS_QUICK: Final = 2_000
STREAMS: Final = 100
IDLE_CONNECTIONS: Final = 1_000
REVISIONS: Final = 500_000
REVISIONS_QUICK: Final = 20_000
LEASES: Final = 10_000
LEASES_QUICK: Final = 500
PUT_RATE: Final = 2_000  # puts a second whose latency shows what else the server does
CATCH_UP_S: Final = 10.0  # more than a server needs for all revisions
EXPIRY_TTL_S: Final = 8
EXPIRY_S: Final = 20.0  # from before the first lease ends until after the last

Arguments = Sequence[str]


def _long(workload: str, *arguments: str) -> list[str]:
    return ["-m", "bench.long_load", workload, *arguments]


def _fill(node: servers.Node, keys: int) -> None:
    """Put each of the first keys of the load generator once."""
    fill = ("--count", str(keys), "--keys", "sequential", "--connections", "10", "--streams", "20")
    servers.load(["-m", "bench.load", "put", "--endpoints", node.endpoint, *fill])


def _puts(context: Context, node: servers.Node, *arguments: str) -> list[str]:
    times = ("--seconds", str(context.seconds), "--warmup", str(context.warmup))
    return ["-m", "bench.load", "put", "--endpoints", node.endpoint, *times, *arguments]


def _simple(context: Context, workload: str, *arguments: str) -> Figures:
    with servers.running(context.product, 1, context.parent) as cluster:
        return servers.load(
            _long(
                workload,
                *("--endpoints", cluster.nodes[0].endpoint),
                *("--seconds", str(context.seconds), "--warmup", str(context.warmup)),
                *arguments,
            )
        )


def fanout(context: Context) -> Figures:
    """1,000 watchers of one key on 10 connections."""
    return _simple(context, "fanout", "--watchers", "1000", "--connections", "10", "--window", "4")


def fanout_paced(context: Context) -> Figures:
    """The same, with the next put only when every watcher has the event of an earlier one."""
    return _simple(context, "fanout", "--watchers", "1000", "--connections", "10", "--window", "4", "--paced")


def single(context: Context) -> Figures:
    """One watcher, one put at a time."""
    return _simple(context, "single")


def keepalive(context: Context) -> Figures:
    """Renewals of many leases."""
    leases = LEASES_QUICK if context.quick else LEASES
    return _simple(context, "keepalive", "--leases", str(leases), "--connections", str(STREAMS))


def _ready(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdout is not None
    if holder.stdout.readline().strip() != b"ready":
        raise servers.NotReadyError("the watchers were not created")


def many_watchers(context: Context) -> Figures:
    """Puts of watched keys with and without the watchers, and what the watchers weigh. All keys are there before."""
    watchers = WATCHERS_QUICK if context.quick else WATCHERS
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        _fill(node, watchers)
        without = servers.load(_puts(context, node, "--space", str(watchers)))
        before = cluster.usage().rss_bytes
        hold = ("--watchers", str(watchers), "--connections", str(STREAMS))
        with servers.load_beside(_long("hold", "--endpoints", node.endpoint, *hold)) as holder:
            _ready(holder)
            weight = cluster.usage().rss_bytes - before
            watched = servers.load(_puts(context, node, "--space", str(watchers)))
    return {
        "kept": watched["throughput"] / without["throughput"],
        "throughput": watched["throughput"],
        "watcher_bytes": max(weight, 0) / watchers,
    }


def idle_connections(context: Context) -> Figures:
    """What connections weigh that each hold one stream with one watcher."""
    connections = IDLE_CONNECTIONS // (10 if context.quick else 1)
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        servers.load(_puts(context, node))
        before = cluster.usage().rss_bytes
        hold = ("--watchers", str(connections), "--connections", str(connections))
        with servers.load_beside(_long("hold", "--endpoints", node.endpoint, *hold)) as holder:
            _ready(holder)
            weight = cluster.usage().rss_bytes - before
    return {"connection_bytes": max(weight, 0) / connections, "rss_mib": before / MIB}


def catch_up(context: Context) -> Figures:
    """One watcher reads history from its beginning while puts arrive at a fixed rate; the history is made once."""
    revisions = REVISIONS_QUICK if context.quick else REVISIONS
    cluster = context.kept.get("history")
    is_new = cluster is None
    if cluster is None:
        cluster = context.kept["history"] = context.stack.enter_context(
            servers.cluster(context.product, 1, context.parent)
        )
    cluster.start()
    node = cluster.nodes[0]
    if is_new:
        _fill(node, revisions)
    rated = ("--prefix", "beside/", "--rate", str(PUT_RATE))
    alone = servers.load(_puts(context, node, *rated))
    limits = ("--count", str(revisions), "--seconds", str(CATCH_UP_S))
    with servers.load_beside(_long("catch-up", "--endpoints", node.endpoint, *limits)) as watcher:
        beside = servers.load(_puts(context, node, *rated))
        assert watcher.stdout is not None
        figures: dict[str, float] = json.loads(watcher.stdout.readline())
    cluster.stop()
    return {
        "throughput": figures["throughput"],
        "put_p99_ms": beside["p99_ms"],
        "put_p99_grew": beside["p99_ms"] / alone["p99_ms"],
    }


def expiry(context: Context) -> Figures:
    """Puts at a fixed rate while many leases end."""
    leases = LEASES_QUICK if context.quick else LEASES
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        granted = servers.load(
            _long("expiring", "--endpoints", node.endpoint, "--leases", str(leases), "--ttl", str(EXPIRY_TTL_S))
        )
        quiet = max(EXPIRY_TTL_S - granted["seconds"] - 1, 0.0)
        rated = ("--rate", str(PUT_RATE), "--warmup", str(quiet), "--seconds", str(EXPIRY_S - EXPIRY_TTL_S))
        figures = servers.load(["-m", "bench.load", "put", "--endpoints", node.endpoint, *rated])
        left = node.call(messages.KV_RANGE, messages.range_(b"leased/", b"leased0", limit=1))
    return {"p99_ms": figures["p99_ms"], "max_ms": figures["max_ms"], "left": messages.first_number(left, 4)}


LONG_CASES: Final = (
    Case(
        "watch-fanout",
        "1 key, 1,000 watchers on 10 connections, 4 puts in flight: events",
        fanout,
        (Goal("throughput", at_least=1.0), Goal("p99_ms", at_most=1.0)),
    ),
    Case(
        "watch-fanout-paced",
        "the same, a put being in flight until all watchers have its event",
        fanout_paced,
        (Goal("throughput", at_least=1.0), Goal("p99_ms", at_most=1.0)),
    ),
    Case("watch-single", "1 watcher, one put at a time: put to event", single, (Goal("p50_ms", at_most=1.5),)),
    Case(
        "watch-many",
        "100,000 watchers on distinct keys: puts of these keys, with them / without them",
        many_watchers,
        (Goal("kept", at_least=0.8, own=True), Goal("watcher_bytes", at_most=1_000, own=True)),
    ),
    Case(
        "watch-idle",
        "1,000 connections with an idle watcher each: memory of a connection",
        idle_connections,
        (Goal("connection_bytes", at_most=30_000, own=True),),
    ),
    Case(
        "watch-catch-up",
        "catch-up of one watcher over 500,000 revisions while puts run",
        catch_up,
        (Goal("throughput", at_least=1.0), Goal("put_p99_grew", at_most=1.5, own=True)),
    ),
    Case(
        "lease-keepalive",
        "10,000 leases on 100 connections: renewals",
        keepalive,
        (Goal("throughput", at_least=1.0),),
    ),
    Case(
        "lease-expiry",
        "10,000 leases with a key each end at once: puts meanwhile",
        expiry,
        (Goal("p99_ms", at_most=1.0),),
    ),
)
