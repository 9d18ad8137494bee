"""The cases of a leader that is killed, and of one that is asked to end: how long nobody is answered.

Both products run with etcd's default timeouts. Puts are sent at a fixed rate whatever became of those before them.
"""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import grpc

from bench import messages, processes, servers
from bench.cases import Case, Context, Figures, Goal

KILLS: Final = 5
EVERY_S: Final = 0.005  # between two puts
CALL_S_MAX: Final = 10.0
SETTLE_S: Final = 1.0  # of puts before and after a member ends
ANSWERS_BEFORE: Final = 20
SETTLED_S: Final = 0.01  # what the leader had acknowledged may arrive so long after its death
AGAIN_S_MAX: Final = 60.0


class Puts(threading.Thread):
    """Sends puts round the endpoints at a fixed rate, and notes when which was answered."""

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        super().__init__(daemon=True)
        self.answered: list[float] = []  # when, in the order of answers
        self.failed: list[str] = []
        self._calls: list[Callable[..., grpc.Future]] = [channel.unary_unary(messages.KV_PUT) for channel in channels]
        self._stopping = threading.Event()
        self._in_flight = threading.Semaphore(0)
        self._sent = 0

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            call = self._calls[self._sent % len(self._calls)]
            future = call.future(messages.put(b"failover", b"%d" % self._sent), timeout=CALL_S_MAX)  # type: ignore[attr-defined]
            future.add_done_callback(self._note)
            self._sent += 1
            due += EVERY_S
            self._stopping.wait(max(due - time.monotonic(), 0.0))

    def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        self._stopping.set()
        self.join()
        for _ in range(self._sent):
            self._in_flight.acquire()

    def first_after(self, moment: float) -> float | None:
        """When the first answer after a moment came."""
        return next((at for at in list(self.answered) if at > moment), None)

    def longest_gap_s(self) -> float:
        """Between two answers, one after the other."""
        return max(later - earlier for earlier, later in zip(self.answered, self.answered[1:], strict=False))

    def _note(self, future: grpc.Future) -> None:
        if (error := future.exception()) is None:
            self.answered.append(time.monotonic())
        else:
            self.failed.append(str(error))
        self._in_flight.release()


@contextmanager
def putting(channels: Sequence[grpc.Channel]) -> Iterator[Puts]:
    """Puts as long as the block lasts."""
    puts = Puts(channels)
    puts.start()
    try:
        yield puts
    finally:
        puts.stop()
        for channel in channels:
            channel.close()


def balanced(endpoints: Sequence[str]) -> grpc.Channel:
    """One channel to all members: a call that a member did not take goes to another."""
    target = f"ipv4:{','.join(endpoints)}"
    return grpc.insecure_channel(target, options=[("grpc.lb_policy_name", "round_robin")])


def failover(context: Context) -> Figures:
    """Kill the leader; from then until one of the others has accepted a put."""
    with servers.running(context.product, 3, context.parent) as cluster:
        took_ms = [_without_leader_ms(cluster) for _ in range(1 if context.quick else KILLS)]
    return {"p50_ms": statistics.median(took_ms), "max_ms": max(took_ms)}


def _without_leader_ms(cluster: servers.Cluster) -> float:
    leader = cluster.leader()
    others = [node for node in cluster.nodes if node is not leader]
    with putting([grpc.insecure_channel(node.endpoint) for node in others]) as puts:
        servers.wait_until(lambda: len(puts.answered) > ANSWERS_BEFORE, AGAIN_S_MAX, "puts are answered")
        pids = processes.marked(leader.mark)
        killed = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        settled = killed + SETTLED_S
        servers.wait_until(lambda: puts.first_after(settled) is not None, AGAIN_S_MAX, "puts are answered again")
        first = puts.first_after(settled)
        assert first is not None
    leader.kill()
    leader.start()
    leader.wait_ready()
    return (first - killed) * 1e3


def sigterm(context: Context) -> Figures:
    """Ask the leader to end while clients of all members write."""
    gaps_ms, failed = [], 0
    with servers.running(context.product, 3, context.parent) as cluster:
        for _ in range(1 if context.quick else KILLS):
            leader = cluster.leader()
            with putting([balanced(cluster.endpoints)]) as puts:
                time.sleep(SETTLE_S)
                assert leader.process is not None
                leader.process.terminate()
                leader.process.wait(AGAIN_S_MAX)
                time.sleep(SETTLE_S)
            gaps_ms.append(puts.longest_gap_s() * 1e3)
            failed += len(puts.failed)
            leader.stop()
            leader.start()
            leader.wait_ready()
    return {"gap_ms": statistics.median(gaps_ms), "max_ms": max(gaps_ms), "failed": failed}


FAILOVER_CASES: Final = (
    Case(
        "failover",
        "three nodes, kill -9 of the leader: first put that is accepted",
        failover,
        (Goal("p50_ms", at_most=1.0),),
    ),
    Case(
        "sigterm",
        "three nodes, SIGTERM to the leader: longest time without an answer, puts that failed",
        sigterm,
        (Goal("gap_ms", at_most=100.0, own=True), Goal("failed", at_most=0.0, own=True)),
    ),
)
