"""Raft and its log alone: commands a second, CPU a command and latency, with api and storage played by this process.

    python -m bench.consensus_alone --outstanding 100 --seconds 5

A closed loop keeps `--outstanding` commands of 256 bytes under way; what the storage side receives counts as done. The
CPU time is the consensus process's own. `--members 3` runs three members on this machine and asks the leader.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.ports import free_ports
from quorate.node.config import Config, render
from quorate.node.places import CONFIG_VARIABLE
from quorate.wire.messages import (
    APPLIED,
    ENTRY,
    STORAGE_HELLO,
    EntryKind,
    Kind,
    Op,
    Origin,
    Part,
    Role,
    chunks_of,
    pack_chunk,
    pack_command,
)
from quorate.wire.sockets import Address, Endpoint

COMMAND = pack_command(Op.PUT, b"v" * 256)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Member:
    """A consensus process and the two neighbours this process plays."""

    config: Config
    process: subprocess.Popen[bytes]
    storage: Endpoint
    api: Endpoint
    leads: bool = False
    applied: int = 0
    done: int = 0  # commands of ours that came round
    latencies: list[float] = field(default_factory=list)
    sent_at: dict[int, float] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """Spent by the consensus process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def poll(self, wait_ms: int) -> None:
        """Takes what consensus said to storage and to api."""
        if wait_ms:
            self.storage.wait(wait_ms)
        for channel, arrived in self.storage.receive():
            for kind, body in arrived:
                if kind == Kind.ENTRY:
                    self._take_entry(body)
            channel.send(Kind.APPLIED, APPLIED.pack(self.applied, self.applied))
        for _, arrived in self.api.receive():
            for kind, body in arrived:
                if kind == Kind.ROLE:
                    self.leads = Role.unpack(body).is_leader
                else:
                    assert kind != Kind.REFUSE, "a chunk was refused"
        self.storage.flush()

    def _take_entry(self, body: bytes) -> None:
        index, _, kind = ENTRY.unpack_from(body)
        self.applied = index
        if kind != EntryKind.BATCH:
            return
        now = time.perf_counter()
        for chunk in chunks_of(body[ENTRY.size :]):
            if chunk.origin.incarnation == self.api.incarnation:
                self.done += chunk.size
                self.latencies.append(now - self.sent_at.pop(chunk.number))


def start(directory: Path, count: int) -> list[Member]:
    """A running cluster of `count` members."""
    urls = {f"m{i}": f"http://127.0.0.1:{port}" for i, port in enumerate(free_ports(count))}
    members = []
    for name, url in urls.items():
        place = directory / name
        config = Config(
            name=name,
            data_dir=str(place),
            run_dir=str(place / "r"),
            listen_peer_urls=[url],
            initial_advertise_peer_urls=[url],
            initial_cluster=",".join(f"{one}={other}" for one, other in urls.items()),
        )
        config.run_path.mkdir(parents=True)
        render(config, place / "config.json")
        environment = os.environ | {CONFIG_VARIABLE: str(place / "config.json")}
        with (place / "log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "quorate.consensus"], env=environment, stdout=output, stderr=output
            )
        storage = Endpoint(config.run_path, Address(Part.STORAGE))
        storage.connect(Address(Part.CONSENSUS), lambda: STORAGE_HELLO.pack(0, 0))
        api = Endpoint(config.run_path, Address(Part.API))
        api.connect(Address(Part.CONSENSUS))
        members.append(Member(config, process, storage, api))
    return members


def measure(members: list[Member], outstanding: int, per_chunk: int, seconds: float) -> str:
    """One closed loop against the leader."""
    deadline = time.monotonic() + 20
    while not any(member.leads for member in members):
        assert time.monotonic() < deadline, "nobody leads"
        for member in members:
            member.poll(10)
    leader = next(member for member in members if member.leads)
    channel = leader.api.channels[Address(Part.CONSENSUS)]
    origin = Origin(1, leader.api.incarnation, 0)
    number = under_way = 0
    leader.done = 0
    leader.latencies.clear()
    cpu = [member.cpu_seconds() for member in members]
    begun = time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds:
        while under_way - leader.done < outstanding:
            size = min(per_chunk, outstanding - (under_way - leader.done))
            number += 1
            leader.sent_at[number] = now
            channel.send(Kind.PROPOSE, pack_chunk(origin, number, [COMMAND] * size))
            under_way += size
        leader.api.flush()
        leader.poll(5)
        for member in members:
            if member is not leader:
                member.poll(0)
    took = time.perf_counter() - begun
    used = sum(member.cpu_seconds() - before for member, before in zip(members, cpu, strict=True))
    latencies = sorted(leader.latencies)
    p99 = latencies[int(len(latencies) * 0.99)]
    while leader.done < under_way:
        for member in members:
            member.poll(1)
    return (
        f"members {len(members)}, outstanding {outstanding}: {leader.done / took:,.0f} commands/s, "
        f"p50 {statistics.median(latencies) * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms, "
        f"cpu {used / leader.done * 1e6:.2f} us a command in all consensus processes"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--outstanding", type=int, nargs="+", default=[1, 100, 1000, 4000])
    parser.add_argument("--per-chunk", type=int, default=100, help="most commands one turn of an api worker says")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--members", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        members = start(Path(directory), given.members)
        try:
            for outstanding in given.outstanding:
                print(measure(members, outstanding, given.per_chunk, given.seconds), flush=True)
        finally:
            for member in members:
                member.process.kill()
                member.process.wait()
                member.storage.close()
                member.api.close()


if __name__ == "__main__":
    main()
