"""Puts the simulated system in place of the real one, in the modules of the services, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quorate.api import callers, ring
from quorate.consensus import calls, driver, healing, node, replacing, segments, snapshots, wal
from quorate.consensus import retention as retention_module
from quorate.node import directories
from quorate.storage import commits, compaction, database, reads, scrub, service
from quorate.storage import snapshot as images
from quorate.wire import sockets
from tests.simulation.whole import disk as disks
from tests.simulation.whole.bus import Bus, Zmq, buses
from tests.simulation.whole.loop import Asyncio, loops
from tests.simulation.whole.rot import HealTime, Quarantine
from tests.simulation.whole.threads import Executor, Select, StorageOs


class System:
    """What the services see of the machine in this run."""

    def __init__(self) -> None:
        self.os = disks.Os()
        self.time = disks.Time()

    def replacements(self) -> list[tuple[object, str, object]]:
        """(module, name, what stands there)."""
        time = self.time
        return [
            (sockets, "os", self.os),
            (sockets, "zmq", Zmq),
            (sockets, "select", Select),
            (wal, "os", self.os),
            (wal, "mmap", disks.Mmap(self.os)),
            (wal, "time", time),
            (segments, "os", self.os),
            (directories, "os", disks.DirectoriesOs(self.os)),
            (segments, "fcntl", disks.Fcntl()),
            (segments, "threading", disks.Threading),
            (healing, "time", HealTime()),
            (healing, "quarantine", Quarantine),
            (replacing, "time", time),
            (driver, "time", time),
            (node, "asyncio", Asyncio),
            (node, "time", time),
            (calls, "time", time),
            (snapshots, "time", time),
            (ring, "asyncio", Asyncio),
            (callers, "time", disks.TrueTime),
            (service, "os", StorageOs()),
            (service, "select", Select),
            (database, "ThreadPoolExecutor", Executor),
            (reads, "ThreadPoolExecutor", Executor),
            (images, "time", time),
            (compaction, "time", time.time),
            (scrub, "threading", disks.Threading),
        ]


# Constants of the services that a run may choose smaller, so that what is rare in life happens often.
KNOBS: dict[str, object] = {
    "LOG_BYTES_KEPT": retention_module,
    "CACHE_BYTES_MAX": retention_module,
    "STATE_RESERVE_BYTES": wal,
    "CHECKPOINT_SECONDS": commits,
    "CHECKPOINT_WAL_BYTES": database,
    "SLICE_RECORDS": compaction,
    "COMMIT_ROWS": commits,
    "TELL_ENTRIES": service,
    "IMAGE_LIFETIME_S": snapshots,
}


@contextmanager
def installed(knobs: dict[str, Any]) -> Iterator[System]:
    """The simulated system, with some constants replaced."""
    system = System()
    places = system.replacements() + [(KNOBS[name], name, value) for name, value in knobs.items()]
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    buses[:] = [Bus()]
    loops.clear()
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield system
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        loops.clear()
