"""`python -m bench.load`: one unary workload against running servers; prints its result as one line of JSON.

It is a process of its own, so that its CPU time can be told apart and nothing else shares its interpreter.
"""

import argparse
import base64
import itertools
import json
import random
import resource
import sys
import time
from array import array
from collections.abc import Callable

from bench import engine, http1, http2, messages
from bench.certificates import Files

VALUE_BYTES = 256
KEY_POOL = 100_000
GATEWAY_PUT = "/v3/kv/put"
WORKLOADS = ("put", "range", "txn", "list", "json-put", "login")


def keys(prefix: str, order: str, space: int, seed: int) -> Callable[[], bytes]:
    """An endless supply of 32-byte keys under a prefix: counted up, or drawn from `space` many."""
    width = 32 - len(prefix)
    if order == "sequential":
        numbers = itertools.count()
        return lambda: b"%b%0*d" % (prefix.encode(), width, next(numbers))
    chance = random.Random(seed)
    pool = [f"{prefix}{number:0{width}d}".encode() for number in range(min(space, KEY_POOL))]
    drawn = itertools.cycle([chance.choice(pool) for _ in range(KEY_POOL)])
    return drawn.__next__


def framed(prefix: bytes, suffix: bytes, next_key: Callable[[], bytes]) -> Callable[[], bytes]:
    """gRPC messages that differ in nothing but a key of constant length in their middle."""
    length = len(prefix) + len(next_key()) + len(suffix)
    head = b"\0" + length.to_bytes(4) + prefix
    join = b"".join
    return lambda: join((head, next_key(), suffix))


def value(seed: int) -> bytes:
    """The value of every put of a run."""
    return random.Random(seed).randbytes(VALUE_BYTES)


def user_name(number: int) -> bytes:
    """A user that logs in."""
    return b"user%d" % number


def bodies(workload: str, options: argparse.Namespace) -> tuple[str, Callable[[], bytes]]:
    """The method and the endless request bodies of a workload."""
    value_ = value(options.seed)
    next_key = keys(options.prefix, options.keys, options.space, options.seed)
    sample = next_key()
    match workload:
        case "put":
            before, after = messages.put(sample, value_).split(sample)
            return messages.KV_PUT, framed(before, after, next_key)
        case "range":
            constant = http2.grpc_message(messages.range_(options.key.encode()))
            return messages.KV_RANGE, lambda: constant
        case "txn":
            message = messages.txn_put_if_absent(sample, b"never-created", value_)
            before, after = message.split(sample)
            return messages.KV_TXN, framed(before, after, next_key)
        case "list":
            prefix = options.prefix.encode()
            end = prefix[:-1] + bytes([prefix[-1] + 1])
            constant = http2.grpc_message(messages.range_(prefix, end, limit=100))
            return messages.KV_RANGE, lambda: constant
        case "login":
            logins = itertools.cycle(
                [
                    http2.grpc_message(messages.authenticate(user_name(number), options.password.encode()))
                    for number in range(options.users)
                ]
            )
            return messages.AUTHENTICATE, logins.__next__
        case "json-put":
            encoded = base64.b64encode(value_).decode()
            before, after = json.dumps({"key": "@", "value": encoded}).encode().split(b"@")
            encode = base64.b64encode
            return GATEWAY_PUT, lambda: b"".join((before, encode(next_key()), after))
    raise ValueError(workload)


def run(options: argparse.Namespace) -> engine.Outcome:
    """Connect, put the load on, hang up."""
    path, body = bodies(options.workload, options)
    files = Files(options.cacert, options.client_cert, options.client_key)
    context = files.context() if options.cacert else None
    if options.workload in ("range", "list"):
        host, port = options.endpoints[0]
        put = messages.put(options.key.encode(), b"v" * VALUE_BYTES)
        engine.call(host, port, messages.KV_PUT, put, token=options.token, context=context)
    channels = []
    for number in range(options.connections):
        host, port = options.endpoints[number % len(options.endpoints)]
        authority = f"{host}:{port}"
        if path == GATEWAY_PUT:
            channels.append(engine.connect(host, port, http1.Connection(path, authority), context))
        else:
            metadata = http2.metadata(options.token)
            channels.append(engine.connect(host, port, http2.Connection(path, authority, metadata=metadata), context))
    with engine.Engine(channels, body) as driver:
        if options.rate:
            return driver.open_loop(options.streams, options.rate, options.seconds, options.warmup)
        return driver.closed_loop(options.streams, options.seconds, options.warmup, options.count)


def percentile(ordered: "array[int]", share: float) -> float:
    """A percentile in milliseconds of an ordered array of nanoseconds; 0 when nothing was measured."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6 if ordered else 0.0


def summary(outcome: engine.Outcome, cpu_seconds: float, wall_seconds: float) -> dict[str, object]:
    """The figures of a run, times in milliseconds."""
    ordered = array("q", sorted(outcome.latencies))
    return {
        "throughput": round(outcome.completed / outcome.seconds, 1),
        "p50_ms": percentile(ordered, 0.50),
        "p90_ms": percentile(ordered, 0.90),
        "p99_ms": percentile(ordered, 0.99),
        "max_ms": percentile(ordered, 1.0),
        "completed": outcome.completed,
        "errors": outcome.errors,
        "first_error": outcome.first_error,
        "client_cpu_share": round(cpu_seconds / wall_seconds, 3),
    }


def endpoint(text: str) -> tuple[str, int]:
    """host:port."""
    host, _, port = text.rpartition(":")
    return host, int(port)


def parser() -> argparse.ArgumentParser:
    """The options of this program."""
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--endpoints", type=endpoint, nargs="+", required=True, help="connections are dealt out")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--streams", type=int, default=1, help="calls in flight on each connection")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=0, help="stop after so many answers instead")
    parser.add_argument("--rate", type=float, default=0.0, help="open loop: calls a second")
    parser.add_argument("--keys", choices=("random", "sequential"), default="random")
    parser.add_argument("--space", type=int, default=KEY_POOL, help="how many keys random ones are drawn from")
    parser.add_argument("--prefix", default="bench/")
    parser.add_argument("--key", default="bench-one-key", help="the key that `range` reads")
    parser.add_argument("--token", default="", help="who calls, on gRPC")
    parser.add_argument("--users", type=int, default=1, help="how many users `login` logs in, one after the other")
    parser.add_argument("--password", default="", help="of all of them")
    parser.add_argument("--cacert", default="", help="CA of the servers' certificates; without it there is no TLS")
    parser.add_argument("--client-cert", default="", help="certificate to show")
    parser.add_argument("--client-key", default="", help="its key")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Run and report; exit 1 when a call failed or the server went away."""
    options = parser().parse_args()
    cpu, wall = cpu_seconds(), time.perf_counter()
    try:
        outcome = run(options)
    except (http2.ProtocolError, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps(summary(outcome, cpu_seconds() - cpu, time.perf_counter() - wall)), flush=True)
    return 1 if outcome.errors else 0


if __name__ == "__main__":
    sys.exit(main())
