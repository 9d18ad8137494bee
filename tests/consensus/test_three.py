"""Three real consensus processes over loopback, each with a fake storage and a fake api in this process."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bench.ports import free_port, free_ports
from quorate.node.config import Config, render
from quorate.node.places import CONFIG_VARIABLE
from quorate.proto import rpc_pb2 as rpc
from quorate.wire import errors
from quorate.wire.messages import ClusterOp, Op, pack_command
from tests.consensus.fakes import Applied, FakeApi, FakeStorage, grown, read_image, until

ELECTION_MS = 300
SEGMENT_BYTES = 256 * 1024
ELECTION_TIMEOUTS_ALONE = 4  # in which a member that needs no quorum would have elected itself


class Node:
    """One consensus process with its neighbours."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory = directory
        self.config = config
        self.state: list[Applied] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.storage: FakeStorage | None = None
        self.durable_index = 0
        config.run_path.mkdir(parents=True)
        self.api = FakeApi(config.run_path)
        self.api.attach(asyncio.get_running_loop())

    def start(self) -> None:
        path = self.directory / "config.json"
        render(self.config, path)
        environment = os.environ | {CONFIG_VARIABLE: str(path), "QUORATE_WAL_SEGMENT_BYTES": str(SEGMENT_BYTES)}
        with (self.directory / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quorate.consensus"], env=environment, stdout=output, stderr=output
            )
        self.start_storage()

    def start_storage(self) -> None:
        self.storage = FakeStorage(self.config.run_path, self.state, self.durable_index)
        self.storage.attach(asyncio.get_running_loop())

    def stop_storage(self) -> None:
        if self.storage is not None:
            self.durable_index = self.storage.durable_index
            self.storage.close()
            self.storage = None

    def end(self, number: signal.Signals) -> int:
        """Ends process and storage; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.join()

    def join(self) -> int:
        assert self.process is not None
        status = self.process.wait(20)
        self.process = None
        self.stop_storage()
        self.api.poll()
        self.api.roles.clear()  # what the ended process said counts no more
        return status

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def leads(self) -> bool:
        return self.is_running and bool(self.api.roles) and self.api.roles[-1].is_leader and self.api.channel.opened

    def install_image(self) -> None:
        """What storage does when it is told to: takes the file and comes back."""
        assert self.storage is not None
        index, _term, path = self.storage.installed[-1]
        self.state[:] = read_image(path)
        self.storage.close()
        self.durable_index = index
        self.start_storage()

    def bodies(self) -> list[bytes]:
        return [one.body for one in self.state]

    def log_text(self) -> str:
        return (self.directory / "log").read_text()

    async def call(self, op: ClusterOp, request: bytes = b"") -> tuple[int, bytes]:
        number = self.api.call(op, request)
        await until(lambda: number in self.api.replies)
        return self.api.replies[number]


class Cluster:
    """Nodes by name."""

    def __init__(self, directory: Path, names: list[str], scheme: str, **settings: Any) -> None:
        self.directory = directory
        self.nodes: dict[str, Node] = {}
        self.urls = {
            name: f"{scheme}://127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        self.proposed = 0
        for name in names:
            self.add(name, self.urls, **settings)

    def add(self, name: str, urls: dict[str, str], **settings: Any) -> Node:
        place = self.directory / name
        place.mkdir()
        config = Config(
            name=name,
            data_dir=str(place / "data"),
            run_dir=str(place / "r"),
            listen_peer_urls=[urls[name]],
            initial_advertise_peer_urls=[urls[name]],
            advertise_client_urls=[f"http://{name}:2379"],
            initial_cluster=",".join(f"{one}={url}" for one, url in urls.items()),
            heartbeat_interval=ELECTION_MS // 10,
            election_timeout=ELECTION_MS,
            snapshot_catchup_entries=10,
            unsafe_no_fsync=True,
            **settings,
        )
        node = self.nodes[name] = Node(place, config)
        return node

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.is_running]

    def leader(self) -> Node | None:
        return next((node for node in self.running if node.leads), None)

    async def led(self) -> Node:
        """The leader, when every running member knows it."""

        def agreed() -> bool:
            leader = self.leader()
            return leader is not None and all(
                node.api.channel.opened and node.api.roles and node.api.roles[-1].leader_id == leader_id_of(leader)
                for node in self.running
            )

        await until(agreed)
        leader = self.leader()
        assert leader is not None
        return leader

    def propose(self, node: Node, count: int, size: int = 10) -> list[bytes]:
        """Commands at `node`, as storage will see them."""
        commands = []
        for _ in range(count):
            self.proposed += 1
            body = b"%d:" % self.proposed + b"x" * size
            node.api.propose(body)
            commands.append(pack_command(Op.PUT, body))
        return commands

    async def applied_by(self, node: Node, commands: list[bytes]) -> None:
        """`node` has applied the last of `commands`, and nothing after it."""
        await until(lambda: node.bodies()[-1:] == commands[-1:])

    async def applied(self, commands: list[bytes]) -> None:
        """Every running member has applied all of `commands`."""
        await until(lambda: all(commands[-1] in node.bodies()[-200:] for node in self.running))
        for node in self.running:
            assert [one for one in node.bodies() if one in set(commands)] == commands


def leader_id_of(node: Node) -> int:
    return node.api.roles[-1].member_id


@asynccontextmanager
async def cluster(names: list[str], scheme: str = "http", **settings: Any) -> AsyncIterator[Cluster]:
    """A started cluster; everything is ended in the end, and the logs are shown if the test failed."""
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        whole = Cluster(Path(directory), names, scheme, **settings)
        try:
            for node in whole.nodes.values():
                node.start()
            yield whole
        except BaseException:
            for name, node in whole.nodes.items():
                print(f"--- {name}\n{node.log_text()[-5000:]}")
            raise
        finally:
            for node in whole.nodes.values():
                if node.process is not None:
                    node.process.kill()
                    node.join()
                node.stop_storage()
                node.api.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    uvloop.run(test)


def test_three_members_agree_and_survive_kill_9_of_the_leader_and_of_all() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            commands: list[bytes] = []
            for node in whole.nodes.values():
                commands += whole.propose(node, 20)
                await whole.applied(commands)
            leader.end(signal.SIGKILL)
            second = await whole.led()
            assert second is not leader
            commands += whole.propose(second, 50)
            await whole.applied(commands)
            leader.start()
            await whole.applied(commands)
            for node in whole.nodes.values():
                node.end(signal.SIGKILL)
            for node in whole.nodes.values():
                node.start()
            leader = await whole.led()
            commands += whole.propose(leader, 5)
            await whole.applied(commands)
            for node in whole.nodes.values():
                assert commands == node.bodies()

    run(scenario())


def test_reads_at_a_follower_see_what_was_acknowledged_before_them() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            follower = next(node for node in whole.running if node is not leader)
            for i in range(20):
                commands = whole.propose(leader, 1)
                await whole.applied_by(leader, commands)
                index = leader.state[-1].index
                follower.api.read(b"r")
                storage = follower.storage
                assert storage is not None
                await grown(storage.reads, i + 1)
                assert storage.reads[i][0] >= index

    run(scenario())


def test_a_leader_that_is_asked_to_stop_hands_over_first() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            await until(lambda: leader.log_text().count("peer became active") >= 2)
            others = [node for node in whole.running if node is not leader]
            terms = [node.api.roles[-1].term for node in others]
            assert leader.process is not None
            leader.process.send_signal(signal.SIGTERM)
            await until(lambda: any(node.leads for node in others), 5)
            assert 0 == leader.join()
            await whole.led()
            assert [term + 1 for term in terms] == [node.api.roles[-1].term for node in others]
            commands = whole.propose(others[0], 3)
            await whole.applied(commands)

    run(scenario())


def test_a_member_far_behind_gets_a_snapshot_while_the_others_go_on() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            behind = next(node for node in whole.running if node is not leader)
            commands = whole.propose(leader, 3)
            await whole.applied(commands)
            behind.end(signal.SIGKILL)
            for _ in range(40):
                commands += whole.propose(leader, 4, size=20_000)
                await whole.applied_by(leader, commands)
            wal = Path(leader.config.data_dir) / "member" / "wal"
            await until(lambda: not list(wal.glob("0000000000000001-*")), 10)
            behind.start()
            await until(lambda: behind.storage is not None and behind.storage.installed)
            behind.install_image()
            commands += whole.propose(leader, 5)
            await until(lambda: behind.bodies()[-1:] == commands[-1:])
            assert commands == behind.bodies()
            behind.end(signal.SIGKILL)
            behind.start()
            commands += whole.propose(leader, 5)
            await until(lambda: behind.bodies() == commands)

    run(scenario())


def test_without_a_quorum_nothing_is_applied_or_read_and_all_goes_on_in_its_order_when_it_is_back() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            before = whole.propose(leader, 3)
            await whole.applied(before)
            gone, away = [node for node in whole.running if node is not leader]
            gone.end(signal.SIGKILL)
            storage, process = leader.storage, away.process
            assert storage is not None
            assert process is not None
            process.send_signal(signal.SIGSTOP)  # it comes back at once, before the writes are given up
            believed = whole.propose(leader, 3)  # while it takes itself for the leader still
            leader.api.read(b"believed")
            await until(lambda: leader.api.roles[-1].leader_id == 0)
            known = whole.propose(leader, 3)
            leader.api.read(b"known")
            loop = asyncio.get_running_loop()
            end = loop.time() + ELECTION_TIMEOUTS_ALONE * ELECTION_MS / 1000
            await until(lambda: loop.time() > end or leader.leads or storage.reads or leader.bodies() != before)
            assert not leader.leads
            assert ([], before) == (storage.reads, leader.bodies())
            process.send_signal(signal.SIGCONT)
            commands = before + believed + known
            await until(lambda: leader.bodies() == away.bodies() == commands)
            await grown(storage.reads, 2)
            assert [] == leader.api.refusals

    run(scenario())


def test_members_are_listed_with_what_they_published_and_the_leadership_moves() -> None:
    async def scenario() -> None:
        async with cluster(["a", "b", "c"]) as whole:
            leader = await whole.led()
            request = rpc.MemberListRequest(linearizable=True).SerializeToString()

            async def members() -> dict[str, rpc.Member]:
                _, body = await leader.call(ClusterOp.MEMBER_LIST, request)
                return {member.name: member for member in rpc.MemberListResponse.FromString(body).members}

            listed = await members()
            while not all(member.clientURLs for member in listed.values()):
                listed = await members()
            assert {name: [url] for name, url in whole.urls.items()} == {n: list(m.peerURLs) for n, m in listed.items()}
            target = next(name for name, node in whole.nodes.items() if node is not leader)
            move = rpc.MoveLeaderRequest(targetID=listed[target].ID).SerializeToString()
            assert 0 == (await leader.call(ClusterOp.MOVE_LEADER, move))[0]
            await until(lambda: whole.nodes[target].leads)
            assert errors.NOT_LEADER.id == (await leader.call(ClusterOp.MOVE_LEADER, move))[0]

    run(scenario())


@pytest.mark.parametrize("path", ["/members", "/version", "/health", "/other"])
def test_plain_http_is_answered_on_the_peer_port(path: str) -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            await whole.led()
            connection = http.client.HTTPConnection(whole.urls["a"].removeprefix("http://"), timeout=5)
            connection.request("GET", path)
            response = await asyncio.to_thread(connection.getresponse)
            body = response.read()
            connection.close()
            assert (404 if path == "/other" else 200) == response.status
            assert response.headers["X-Etcd-Cluster-ID"]
            if path == "/members":
                assert b'"name":"a"' in body
                assert int(response.headers["X-Quorate-Membership-Index"]) > 0

    run(scenario())


def test_a_damaged_log_and_a_second_process_are_refused_with_one_sentence() -> None:
    async def scenario() -> None:
        async with cluster(["a"]) as whole:
            node = whole.nodes["a"]
            await whole.led()
            commands = whole.propose(node, 100, size=100)
            await whole.applied(commands)
            intruder = whole.add("b", whole.urls | {"b": f"http://127.0.0.1:{free_port()}"})
            (intruder.directory / "data").symlink_to(node.directory / "data")
            intruder.start()
            assert 1 == await asyncio.to_thread(intruder.join)
            assert "is in use by another process" in intruder.log_text()
            node.end(signal.SIGKILL)
            segment = next((node.directory / "data" / "member" / "wal").glob("*.wal"))
            damage(segment, lambda data: data.index(b"1:xxxx"))
            node.start()
            assert 1 == await asyncio.to_thread(node.join)
            assert "the log is damaged" in node.log_text()
            assert str(segment) in node.log_text()

    run(scenario())


def damage(path: Path, where: Callable[[bytearray], int]) -> None:
    data = bytearray(path.read_bytes())
    data[where(data)] ^= 1
    path.write_bytes(data)
