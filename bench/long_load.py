"""`python -m bench.long_load`: workloads of watches and leases; prints their result as one line of JSON.

Events are not parsed one by one: each carries a recognisable value, and one search over what a socket gave counts
them and finds out which put they came from.
"""

import argparse
import itertools
import json
import re
import select
import sys
import time
from array import array
from collections import Counter, deque
from typing import Final

from bench import engine, http2, load, messages
from bench.streams import Streams

STAMP: Final = re.compile(rb"@stamp:(\d{8})")
STAMP_BYTES: Final = 15
WATCHED: Final = b"watched"
LEASE_BASE: Final = 1 << 40
RENEWALS_IN_FLIGHT: Final = 16
GRANTS_IN_FLIGHT: Final = 64
LEASE_PREFIX: Final = b"leased/"

Report = dict[str, object]


class Puts:
    """Puts of one key with a numbered value, on a connection of their own."""

    def __init__(self, endpoint: tuple[str, int], poller: select.epoll) -> None:
        self._client = http2.Connection(messages.KV_PUT, f"{endpoint[0]}:{endpoint[1]}")
        self._channel = engine.connect(*endpoint, self._client)
        self._poller = poller
        self.fd = self._channel.sock.fileno()
        poller.register(self.fd, select.EPOLLIN)
        self.sent_at: list[int] = []
        self.answered = 0

    def send(self, count: int = 1) -> None:
        """Put `count` times."""
        for _ in range(count):
            message = messages.put(WATCHED, b"@stamp:%08d" % len(self.sent_at))
            self.sent_at.append(time.perf_counter_ns())
            frames = self._client.request(http2.grpc_message(message))
            engine.send(self._channel, self._client.take_out() + frames, self._poller)

    def receive(self) -> int:
        """How many were answered by what has arrived."""
        done = len(self._client.receive(self._channel.sock.recv(engine.RECV_BYTES)))
        if self._client.errors:
            raise http2.ProtocolError(self._client.first_error)
        self.answered += done
        return done

    def collect(self) -> None:
        """Take note of answers."""
        self.receive()

    def refill(self) -> None:
        """Keep as many in flight as there were."""
        self.send(self.receive())


def fanout(options: argparse.Namespace) -> Report:
    """Many watchers of one key: events a second, and their delay.

    A put leaves the window when it is answered; paced, when every watcher has its event, so that the delay is not
    the length of a backlog.
    """
    delays: Counter[int] = Counter()  # microseconds -> events
    delivered: Counter[bytes] = Counter()  # stamp -> watchers that have its event
    with Streams(options.endpoints, messages.WATCH, options.connections) as streams:
        streams.watch([WATCHED] * options.watchers)
        puts = Puts(options.endpoints[0], streams.poller)
        streams.also[puts.fd] = puts.collect if options.paced else puts.refill
        now = time.perf_counter_ns()
        measured_from = now + int(options.warmup * 1e9)
        stop_at = measured_from + int(options.seconds * 1e9)
        puts.send(options.window)
        while now < stop_at:
            for stream in streams.readable():
                received = stream.receive()
                now = time.perf_counter_ns()
                stream.rest = received[-STAMP_BYTES + 1 :]
                for stamp, count in Counter(STAMP.findall(received)).items():
                    if now >= measured_from:
                        delays[(now - puts.sent_at[int(stamp)]) // 1000] += count
                    delivered[stamp] += count
                    if options.paced and delivered[stamp] == options.watchers:
                        puts.send()
            now = time.perf_counter_ns()
    return {
        "throughput": delays.total() / options.seconds,
        "p50_ms": weighted_percentile(delays, 0.50) / 1e3,
        "p99_ms": weighted_percentile(delays, 0.99) / 1e3,
        "puts": puts.answered,
    }


def weighted_percentile(counts: Counter[int], share: float) -> float:
    """The value at or below which that share of the counted items lies."""
    wanted = counts.total() * share
    for value in sorted(counts):
        wanted -= counts[value]
        if wanted <= 0:
            return value
    return 0.0


def single(options: argparse.Namespace) -> Report:
    """One watcher, and a put only after the event of the one before."""
    delays = array("q")
    with Streams(options.endpoints[:1], messages.WATCH, 1) as streams:
        streams.watch([WATCHED])
        puts = Puts(options.endpoints[0], streams.poller)
        streams.also[puts.fd] = puts.collect
        now = time.perf_counter_ns()
        measured_from = now + int(options.warmup * 1e9)
        stop_at = measured_from + int(options.seconds * 1e9)
        seen = 0
        while now < stop_at:
            if seen == len(puts.sent_at) == puts.answered:
                puts.send()
            for stream in streams.readable():
                received = stream.receive()
                now = time.perf_counter_ns()
                stream.rest = received[-STAMP_BYTES + 1 :]
                if found := STAMP.findall(received):
                    seen += len(found)
                    if now >= measured_from:
                        delays.append(now - puts.sent_at[int(found[-1])])
            now = time.perf_counter_ns()
    ordered = array("q", sorted(delays))
    return {
        "p50_ms": load.percentile(ordered, 0.50),
        "p99_ms": load.percentile(ordered, 0.99),
        "completed": len(ordered),
    }


def hold(options: argparse.Namespace) -> Report:
    """Watchers on distinct keys until standard input closes; says `ready` when all are created."""
    value = load.value(options.seed)
    events = 0
    next_key = load.keys(options.prefix, "sequential", 0, 0)
    with Streams(options.endpoints, messages.WATCH, options.connections) as streams:
        streams.watch([next_key() for _ in range(options.watchers)])
        print("ready", flush=True)
        closed = False

        def close() -> None:
            nonlocal closed
            closed = True

        streams.poller.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        streams.also[sys.stdin.fileno()] = close
        while not closed:
            for stream in streams.readable(1.0):
                received = stream.receive()
                stream.rest = received[-len(value) + 1 :]
                events += received.count(value)
    return {"events": events}


def catch_up(options: argparse.Namespace) -> Report:
    """One watcher from an old revision on: events a second until `count` were delivered or time is up."""
    value = load.value(options.seed)
    prefix = options.prefix.encode()
    create = messages.watch_create(prefix, prefix[:-1] + bytes([prefix[-1] + 1]), start_revision=options.revision)
    events = 0
    with Streams(options.endpoints[:1], messages.WATCH, 1) as streams:
        began = time.perf_counter()
        streams.all[0].send([create])
        deadline = began + options.seconds
        while events < options.count and time.perf_counter() < deadline:
            for stream in streams.readable():
                received = stream.receive()
                stream.rest = received[-len(value) + 1 :]
                events += received.count(value)
        seconds = time.perf_counter() - began
    return {"throughput": events / seconds, "events": events}


def keepalive(options: argparse.Namespace) -> Report:
    """Leases renewed round and round over one stream a connection: renewals a second."""
    host, port = options.endpoints[0]
    ids = [LEASE_BASE + number for number in range(options.leases)]
    grants = (messages.lease_grant(options.ttl, lease_id) for lease_id in ids)
    for _ in engine.pipeline(host, port, messages.LEASE_GRANT, grants, GRANTS_IN_FLIGHT):
        pass
    delays = array("q")
    with Streams(options.endpoints, messages.LEASE_KEEP_ALIVE, options.connections) as streams:
        turns = {}
        waiting: dict[int, deque[int]] = {}
        now = time.perf_counter_ns()
        measured_from = now + int(options.warmup * 1e9)
        stop_at = measured_from + int(options.seconds * 1e9)
        for number, stream in enumerate(streams.all):
            own = [messages.lease_keep_alive(lease_id) for lease_id in ids[number :: len(streams.all)]]
            turns[stream.fd] = itertools.cycle(own)
            waiting[stream.fd] = deque([now] * RENEWALS_IN_FLIGHT)
            stream.send([next(turns[stream.fd]) for _ in range(RENEWALS_IN_FLIGHT)])
        while now < stop_at:
            for stream in streams.readable():
                answers = list(stream.messages())
                now = time.perf_counter_ns()
                sent = waiting[stream.fd]
                for answer in answers:
                    began = sent.popleft()
                    if b"\x18" not in answer:
                        raise http2.ProtocolError("a lease was lost")
                    if now >= measured_from:
                        delays.append(now - began)
                    sent.append(now)
                stream.send([next(turns[stream.fd]) for _ in answers])
            now = time.perf_counter_ns()
    ordered = array("q", sorted(delays))
    return {"throughput": len(ordered) / options.seconds, "p99_ms": load.percentile(ordered, 0.99)}


def expiring(options: argparse.Namespace) -> Report:
    """Grant leases of a few seconds, one key each, all at once; they are left to expire."""
    host, port = options.endpoints[0]
    ids = [LEASE_BASE + number for number in range(options.leases)]
    grants = (messages.lease_grant(options.ttl, lease_id) for lease_id in ids)
    began = time.perf_counter()
    for _ in engine.pipeline(host, port, messages.LEASE_GRANT, grants, GRANTS_IN_FLIGHT):
        pass
    puts = (messages.put(b"%b%08d" % (LEASE_PREFIX, n), b"v", lease_id) for n, lease_id in enumerate(ids))
    for _ in engine.pipeline(host, port, messages.KV_PUT, puts, GRANTS_IN_FLIGHT):
        pass
    return {"seconds": time.perf_counter() - began}


WORKLOADS: Final = {
    "fanout": fanout,
    "single": single,
    "hold": hold,
    "catch-up": catch_up,
    "keepalive": keepalive,
    "expiring": expiring,
}


def main() -> int:
    """Run and report; exit 1 when the server refused or went away."""
    parser = argparse.ArgumentParser(prog="bench.long_load", description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--endpoints", type=load.endpoint, nargs="+", required=True)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--window", type=int, default=4, help="puts in flight")
    parser.add_argument("--paced", action="store_true", help="a put is in flight until all watchers saw it")
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--ttl", type=int, default=600)
    parser.add_argument("--revision", type=int, default=2, help="where catch-up begins")
    parser.add_argument("--count", type=int, default=500_000, help="events that catch-up waits for")
    parser.add_argument("--prefix", default="bench/")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        print(json.dumps(WORKLOADS[options.workload](options)), flush=True)
    except (http2.ProtocolError, OSError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
