"""Real Quorate nodes for tests: started on free ports in a temporary directory, broken on purpose, ended by pid.

    with quorate_cluster(3) as cluster:
        kill_service(cluster.leader(), "storage")
        ...

Every process of a node carries a mark in its environment (see bench.processes), so that all of them are found
and ended whatever a test did to their supervisor. When a test fails inside the block, the nodes' logs are printed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from bench import processes, servers
from bench.servers import Cluster, Node

Service = Literal["consensus", "storage", "watch", "api"]
SERVICES: Final[tuple[Service, ...]] = ("consensus", "storage", "watch", "api")
BACK_WITHIN_S: Final = 90.0  # no promise: a machine with thirty other processes at work may take so long
POLL_S: Final = 0.02


@contextmanager
def quorate_cluster(size: int = 1, *flags: str, ready: bool = True) -> Iterator[Cluster]:
    """A cluster of Quorate nodes; with `ready` each has accepted a put (key `ready`), else they are only made."""
    with product_cluster(servers.quorate(), size, *flags, ready=ready) as cluster:
        yield cluster


@contextmanager
def product_cluster(product: servers.Product, size: int = 1, *flags: str, ready: bool = True) -> Iterator[Cluster]:
    """The same for any server, so that a test can be run against real etcd too."""
    with servers.cluster(product, size, flags=flags) as cluster:
        try:
            if ready:
                cluster.start()
            yield cluster
        except BaseException:
            for node in cluster.nodes:
                print(f"--- log of {node.name} ({node.endpoint})\n{node.log_tail()}", file=sys.stderr)
            raise


def service_pids(node: Node, service: Service) -> list[int]:
    """The live processes of a service of a node; the api may have several."""
    needle = f"-m quorate.{service} "
    return sorted(pid for pid in processes.marked(node.mark) if needle in f"{processes.command_line(pid)} ")


def service_pid(node: Node, service: Service, within_s: float = BACK_WITHIN_S) -> int:
    """The pid of a service, waited for when it is just being started."""
    wait_until(lambda: bool(service_pids(node, service)), f"{service} of {node.name} runs", within_s)
    return service_pids(node, service)[0]


def kill_service(node: Node, service: Service) -> int:
    """SIGKILL to one service; the pid it had. Its supervisor starts it again."""
    pid = service_pid(node, service)
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_restarted(node: Node, service: Service, old_pid: int, within_s: float = BACK_WITHIN_S) -> int:
    """Wait until a service runs under another pid than before; the new pid."""

    def restarted() -> bool:
        pids = service_pids(node, service)
        return bool(pids) and old_pid not in pids

    wait_until(restarted, f"{service} of {node.name} was started again", within_s)
    return service_pids(node, service)[0]


def restart_service(node: Node, service: Service) -> int:
    """Kill a service and wait until it runs again; the new pid."""
    return wait_restarted(node, service, kill_service(node, service))


@contextmanager
def paused(node: Node, *services: Service) -> Iterator[None]:
    """SIGSTOP to some services (all, when none is named) for as long as the block lasts."""
    pids = [pid for service in services for pid in service_pids(node, service)]
    pids = pids if services else processes.marked(node.mark)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(_stands_still(pid) for pid in pids), "everything stands still")
        yield
    finally:
        for pid in pids:
            if processes.command_line(pid):
                os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """Whether all threads of a process are stopped, which they are a moment after the signal, or it is gone."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return not processes.command_line(pid)
    return all(state.rpartition(")")[2].split()[0] in "tTZX" for state in threads)


def wait_until(condition: Callable[[], bool], what: str, within_s: float = BACK_WITHIN_S) -> None:
    """Poll until the condition holds; AssertionError saying what did not come true otherwise."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"within {within_s} s: {what}"
        time.sleep(POLL_S)
