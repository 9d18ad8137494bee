"""The cluster under fire: members behind proxies, each on its own disk, and what is needed to break and mend them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeGuard

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench import processes, servers
from bench.ports import free_ports
from bench.servers import HOST, Node
from quorate.proto import rpc_pb2
from tests.chaos.calls import AsyncCaller
from tests.chaos.disks import Disk, why_no_disks
from tests.chaos.links import Network
from tests.chaos.people import Person

SEGMENT_BYTES: Final = (16 << 10, 128 << 10, 2 << 20)  # small ones: many files that can be lost
TOKEN_TTL_S: Final = 20
BCRYPT: Final = "--bcrypt-cost=4"
READY_WITHIN_S: Final = 120.0  # many tests may share the machine
POLL_S: Final = 0.05
KNOBS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "ticks": ((), ("--heartbeat-interval", "50", "--election-timeout", "500"), ("--election-timeout", "2000")),
    "snapshots": ((), ("--snapshot-count", "500"), ("--snapshot-count", "5000")),
    "catch up": ((), ("--snapshot-catchup-entries", "100"), ("--snapshot-catchup-entries", "2000")),
    "compaction": ((), (), ("--auto-compaction-mode", "revision", "--auto-compaction-retention", "20000")),
    "batches": ((), ("--compaction-batch-limit", "10"), ("--compaction-batch-limit", "100")),
    "progress": (("--watch-progress-notify-interval", "1s"),),
    "workers": ((), (), ("--api-workers", "2")),
}


class Member(Node):
    """A node whose data are on a disk of its own."""

    __slots__ = ("busy", "disk", "lives", "may_trace", "plain", "stopped_by")

    disk: Disk | None
    plain: servers.Product  # with the clocks of this machine
    busy: asyncio.Lock  # held by whoever ends and starts the whole node
    stopped_by: list[str]  # faults that may end the node; otherwise its end is a finding

    may_trace: bool  # its disk failed, or its clock was faked: sleep fails under libfaketime
    lives: int  # how often it was started

    def start(self) -> None:
        self.lives += 1
        super().start()

    @property
    def data_dir(self) -> Path:
        return self.directory / f"{self.name}.disk" / "data"


@dataclass(frozen=True, slots=True)
class Users:
    """How users come into a run."""

    flags: tuple[str, ...]  # of each member
    begin_share: float  # of the run's time, before they are switched on


@dataclass(slots=True)
class Battlefield:
    """A cluster with everything around it."""

    seed: int
    directory: Path
    nodes: list[Member]
    network: Network
    callers: dict[str, AsyncCaller]  # of the operator
    knobs: dict[str, tuple[str, ...]]
    users: Users | None = None  # if some are made
    renewal: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a member is replaced or heals
    compactable: Callable[[], int] = lambda: 0  # the revision up to which all changes are written down
    compacted: int = 0  # the highest revision that was asked for
    findings: list[str] = field(default_factory=list)  # what no fault explains
    notes: list[str] = field(default_factory=list)  # what was done and seen, with its time
    began: float = field(default_factory=time.monotonic)

    @property
    def endpoints(self) -> list[str]:
        return [node.endpoint for node in self.nodes]

    @property
    def has_disks(self) -> bool:
        return self.nodes[0].disk is not None

    def note(self, text: str) -> None:
        self.notes.append(f"{time.monotonic() - self.began:7.2f} {text}")

    def finding(self, text: str) -> None:
        self.findings.append(text)
        self.note(f"FINDING {text}")

    def note_processes(self) -> None:
        """What each process is doing, as far as the kernel tells: for somebody who asks later why nothing went on."""
        for node in self.nodes:
            for pid in processes.marked(node.mark):
                with suppress(OSError):
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                    waits = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/wchan")]
                    self.note(f"{node.name}: {pid} {processes.command_line(pid)[-60:]} is {state} in {' '.join(waits)}")
                    self.note(_stacks(pid))

    async def leader(self, within_s: float = 5.0) -> Member | None:
        """The member that most members call the leader, if there is one in time."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            states = await asyncio.gather(*(self.status(node) for node in self.nodes))
            terms = {status.raftTerm: node for node, status in zip(self.nodes, states, strict=True) if _leads(status)}
            if terms:
                return terms[max(terms)]
            await asyncio.sleep(POLL_S)
        return None

    async def status(self, node: Member, timeout_s: float = 1.0) -> rpc_pb2.StatusResponse | None:
        """What it says of itself; None while it says nothing."""
        try:
            answer: rpc_pb2.StatusResponse = await self.callers[node.name].unary(
                "Maintenance/Status", rpc_pb2.StatusRequest(), timeout_s
            )
        except grpc.RpcError:
            return None
        return answer

    async def members(self, nodes: Sequence[Member]) -> Sequence[rpc_pb2.Member] | None:
        """The cluster, from the first of these that answers with a quorum behind it; None while nobody does."""
        request = rpc_pb2.MemberListRequest(linearizable=True)
        for node in nodes:
            try:
                answer = await self.callers[node.name].unary("Cluster/MemberList", request, 5.0)
            except grpc.RpcError:
                continue
            members: Sequence[rpc_pb2.Member] = answer.members
            return members
        return None

    async def learn_names(self) -> None:
        """Tell the network which member is which node."""
        for number, node in enumerate(self.nodes):
            async with asyncio.timeout(READY_WITHIN_S):
                while (status := await self.status(node, 5.0)) is None:  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(POLL_S)
            self.network.know(status.header.member_id, number)

    async def watch_over(self) -> None:
        """Start again what ended without being asked to, as a service manager would; never returns."""
        while True:
            await asyncio.sleep(0.2)
            for node in self.nodes:
                process = node.process
                if process is None or node.busy.locked() or process.poll() is None:
                    continue
                text = f"{node.name} ended with status {process.returncode}: {last_line(node)}"
                if not node.stopped_by:
                    self.finding(text)
                self.note(text)
                await asyncio.to_thread(node.kill)
                node.start()


def _stacks(pid: int) -> str:
    """What its threads execute, where py-spy is installed; else empty."""
    if shutil.which("py-spy") is None:
        return ""
    with suppress(subprocess.TimeoutExpired):
        dump = subprocess.run(["py-spy", "dump", "--pid", str(pid)], capture_output=True, check=False, timeout=20)
        return dump.stdout.decode(errors="replace")
    return "its stacks could not be read in time"


def _leads(status: rpc_pb2.StatusResponse | None) -> TypeGuard[rpc_pb2.StatusResponse]:
    return status is not None and status.leader != 0 and status.leader == status.header.member_id


def last_line(node: Node) -> str:
    lines = node.log_tail().splitlines()
    return lines[-1] if lines else ""


def _draw_knobs(seed: int) -> dict[str, tuple[str, ...]]:
    dice = random.Random(f"knobs {seed}")
    return {name: dice.choice(choices) for name, choices in KNOBS.items()}


def _draw_users(seed: int, directory: Path) -> Users | None:
    """Half of the runs have some, with tokens of either kind, from the beginning or from somewhere in the middle."""
    dice = random.Random(f"users {seed}")
    tokens = dice.choice((None, None, f"simple --auth-token-ttl={TOKEN_TTL_S}", "jwt"))
    begin_share = dice.choice((0.0, dice.uniform(0.1, 0.6)))
    if tokens is None:
        return None
    if tokens != "jwt":
        return Users(("--auth-token", *tokens.split(), BCRYPT), begin_share)
    key = directory / "jwt.pem"
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(made.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    settings = f"jwt,priv-key={key},sign-method=ES256,ttl={TOKEN_TTL_S}s"
    return Users(("--auth-token", settings, BCRYPT), begin_share)


def _product(seed: int) -> servers.Product:
    product = servers.quorate()
    segment_bytes = random.Random(f"segments {seed}").choice(SEGMENT_BYTES)
    return replace(product, environment={**product.environment, "QUORATE_WAL_SEGMENT_BYTES": str(segment_bytes)})


def _members(
    product: servers.Product, directory: Path, size: int, ports: list[int], proxies: list[int], flags: tuple[str, ...]
) -> list[Member]:
    names = [f"m{number}" for number in range(size)]
    initial = ",".join(f"{name}=http://{HOST}:{proxy}" for name, proxy in zip(names, proxies, strict=True))
    members = []
    for number, name in enumerate(names):
        client = f"http://{HOST}:{ports[number]}"
        arguments = (
            *("--name", name),
            *("--data-dir", str(directory / f"{name}.disk" / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", f"http://{HOST}:{ports[size + number]}"),
            *("--initial-advertise-peer-urls", f"http://{HOST}:{proxies[number]}"),
            *("--initial-cluster", initial),
            *("--log-level", "info"),
            *flags,
        )
        member = Member(product, name, directory, ports[number], ports[size + number], arguments)
        member.plain, member.busy, member.stopped_by = product, asyncio.Lock(), []
        member.disk, member.lives, member.may_trace = None, 0, False
        members.append(member)
    return members


@asynccontextmanager
async def battlefield(seed: int, size: int, disks: bool = True) -> AsyncIterator[Battlefield]:
    """A started cluster; afterwards nothing is left of it but its directory, if something was found."""
    directory = Path(tempfile.mkdtemp(prefix="quorate-chaos-"))
    network = Network(seed)
    ports = free_ports(2 * size)
    await network.open(ports[size:])
    knobs = _draw_knobs(seed)
    users = _draw_users(seed, directory)
    if users is not None:
        knobs["users"] = users.flags
    flags = tuple(word for words in knobs.values() for word in words)
    members = _members(_product(seed), directory, size, ports, network.ports, flags)
    root = Person("root")
    callers = {member.name: AsyncCaller(member.endpoint, root) for member in members}
    field_ = Battlefield(seed, directory, members, network, callers, knobs, users)
    try:
        for member in members:
            if disks and not why_no_disks():
                member.disk = Disk(directory / f"{member.name}.disk")
                await asyncio.to_thread(member.disk.create)
            else:
                (directory / f"{member.name}.disk").mkdir()
            member.start()
        for member in members:
            await asyncio.to_thread(member.wait_ready, READY_WITHIN_S)
        await field_.learn_names()
        yield field_
    finally:
        await asyncio.to_thread(_clear_away, field_)
        for caller in callers.values():
            await caller.close()
        await network.close()
        if not field_.findings:
            shutil.rmtree(directory, ignore_errors=True)


def _clear_away(field_: Battlefield) -> None:
    for member in field_.nodes:
        member.kill()
        run_dir = member.data_dir / "run"
        if run_dir.is_symlink():
            shutil.rmtree(run_dir.resolve(), ignore_errors=True)
        if member.disk is not None:
            if field_.findings:
                with suppress(OSError):
                    shutil.copytree(member.data_dir, field_.directory / f"{member.name}.data", symlinks=True)
            member.disk.unmount()
            for image in field_.directory.glob(f"{member.name}.image*"):
                image.unlink()


async def until_ready(field: Battlefield, node: Member, within_s: float = READY_WITHIN_S) -> bool:
    """Whether it accepted a put in time."""
    request = rpc_pb2.PutRequest(key=b"ready", value=b"1")
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            await field.callers[node.name].unary("KV/Put", request, within_s)
        except grpc.RpcError:
            await asyncio.sleep(POLL_S)
        else:
            return True
    return False


def signal_all(node: Node, number: int) -> list[int]:
    """Send a signal to all processes of a node."""
    pids = processes.marked(node.mark)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids
