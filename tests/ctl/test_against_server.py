"""Commands whose effect goes beyond their text: mirrors, checks, images and TLS, against a running node."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import servers
from bench.ports import free_port
from bench.servers import Cluster
from quorate.client import AsyncClient, Client
from quorate.ctl import check, quoratectl, quorateutl
from quorate.ctl.mirror import Mirror
from tests.support.cluster import product_cluster

WAIT_S = 20.0


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    with product_cluster(servers.quorate()) as cluster:
        yield cluster


def test_a_mirror_has_what_was_there_and_what_comes(node: Cluster) -> None:
    async def mirror() -> dict[bytes, bytes]:
        async with AsyncClient(node.endpoints) as client:
            for number in range(5):
                await client.put(f"from/{number}", str(number))
            copying = Mirror(client, client, b"from/", b"to/", ops_max=2)
            running = asyncio.create_task(copying.run())
            async with asyncio.timeout(WAIT_S):
                while not (await client.get("to/4")).kvs:
                    pass
                await client.put("from/5", "new")
                await client.delete("from/0")
                while (await client.get("to/0")).kvs or copying.total < 7:  # counted when the answer is there
                    pass
            running.cancel()
            assert copying.total == 7
            return {kv.key: kv.value for kv in (await client.get_prefix("to/")).kvs}

    expected = {f"to/{number}".encode(): str(number).encode() for number in range(1, 5)} | {b"to/5": b"new"}
    assert asyncio.run(mirror()) == expected


def test_a_mirror_takes_large_values_and_begins_at_the_first_revision(node: Cluster) -> None:
    async def mirror() -> int:
        async with AsyncClient(node.endpoints) as client:
            for number in range(4):
                await client.put(f"large/{number}", b"x" * 600_000)
            revision = (await client.put("large/end", "")).header.revision
            await client.compact(revision)
            running = asyncio.create_task(Mirror(client, client, b"large/", b"copied/", ops_max=128).run(rev=1))
            async with asyncio.timeout(WAIT_S):
                while not (await client.get("copied/end")).kvs and not running.done():
                    pass
            if running.done():
                running.result()
            running.cancel()
            return (await client.get_prefix("copied/", count_only=True)).count

    assert asyncio.run(mirror()) == 5


def test_a_command_of_a_watch_that_fails_is_named_and_ends_it(node: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    with Client(node.endpoints) as client:
        revision = client.put("watched", "1").header.revision
    watch = ["--endpoints", node.endpoints[0], "watch", "watched", "--rev", str(revision), "--"]
    assert quoratectl.run([*watch, "sh", "-c", "exit 3"]) == 1
    assert capfd.readouterr().err == 'command ["sh" "-c" "exit 3"] error (exit status 3)\n'


def test_a_command_under_a_lock_gives_its_status(node: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    lock = ["--endpoints", node.endpoints[0], "lock", "statuses", "--"]
    assert quoratectl.run([*lock, "sh", "-c", "exit 7"]) == 7
    assert quoratectl.run([*lock, "sh", "-c", "kill -9 $$"]) == 255
    assert capfd.readouterr().err == "Error: exit status 7\nError: signal: killed\n"


def test_the_end_of_a_lease_is_a_sentence_in_the_simple_format_alone(
    node: Cluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for output, expected in (("simple", b"lease 0000000000001234 expired or revoked.\n"), ("json", b"")):
        assert quoratectl.run(["--endpoints", node.endpoints[0], "-w", output, "lease", "keep-alive", "1234"]) == 0
        assert capsysbinary.readouterr().out == expected


def test_a_check_measures_cleans_up_and_refuses_a_prefix_in_use(
    node: Cluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def measure() -> int:
        async with AsyncClient(node.endpoints, timeout_s=None) as client:
            await check.measure(client, "/check/", 20, 5, 0.5, compact=True)
            return (await client.get_prefix("/check/", count_only=True)).count

    assert asyncio.run(measure()) == 0
    shown = capsysbinary.readouterr().out.decode().splitlines()
    assert [line.split(":")[0] for line in shown if line.startswith(("PASS", "FAIL"))][-1] in ("PASS", "FAIL")
    assert any(line.startswith("Compacted with revision") for line in shown)
    with Client(node.endpoints) as client:
        client.put("/check/x", "1")
    assert quoratectl.run(["--endpoints", node.endpoints[0], "check", "perf", "--prefix", "/check/"]) == 3


def test_a_verdict_fails_for_throughput_slowness_and_deviation(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert check.verdict([0.01] * 100, 1.0, 100)
    assert not check.verdict([0.01] * 80, 1.0, 100)
    assert not check.verdict([0.01] * 99 + [0.6], 1.0, 100)
    assert not check.verdict([0.01, 0.4] * 50, 1.0, 100)
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert lines[:4] == [
        "PASS: Throughput is 101 writes/s",
        "PASS: Slowest request took 0.010000s",
        "PASS: Stddev is 0.000000s",
        "PASS",
    ]
    assert "FAIL: Throughput too low: 81 writes/s" in lines


def test_an_image_is_saved_whole_or_not_at_all(node: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "image.db"
    assert quoratectl.run(["--endpoints", node.endpoints[0], "snapshot", "save", str(path)]) == 0
    image = path.read_bytes()
    assert hashlib.sha256(image[:-32]).digest() == image[-32:]
    assert path.stat().st_mode & 0o777 == 0o600
    taken = tmp_path / "taken"
    taken.mkdir()
    assert quoratectl.run(["--endpoints", node.endpoints[0], "snapshot", "save", str(taken)]) == 5
    taken.rmdir()
    nobody = f"127.0.0.1:{free_port()}"
    assert quoratectl.run(["--endpoints", nobody, "snapshot", "save", str(tmp_path / "none")]) == 5
    assert [left.name for left in tmp_path.iterdir()] == ["image.db"]


def test_commands_speak_tls_and_may_trust_blindly(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    made = CliRunner().invoke(
        quorateutl.main, ["cert", "cluster", str(tmp_path), "--member", "default=127.0.0.1", "--client", "alice"]
    )
    assert made.exit_code == 0, made.output
    files = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "default-server", "default-server-key")}
    flags = [
        *("--cert-file", files["default-server"], "--key-file", files["default-server-key"]),
        *("--trusted-ca-file", files["ca"], "--client-cert-auth"),
    ]
    own = ["--cert", str(tmp_path / "alice.pem"), "--key", str(tmp_path / "alice-key.pem")]
    with product_cluster(servers.etcd(), 1, *flags, ready=False) as cluster:
        member = cluster.nodes[0]
        plain, secured = f"http://{member.endpoint}", f"https://{member.endpoint}"
        member.flags = tuple(flag.replace(plain, secured) for flag in member.flags)
        member.start()
        endpoint = ["--endpoints", secured, "--command-timeout", "20s"]
        assert quoratectl.run([*endpoint, "put", "a", "1", "--cacert", files["ca"], *own]) == 0
        assert quoratectl.run([*endpoint, "get", "a", "-w", "json", "--insecure-skip-tls-verify", *own]) == 0
        assert json.loads(capsysbinary.readouterr().out.splitlines()[-1])["count"] == 1
        assert quoratectl.run([*endpoint[:2], "--command-timeout", "500ms", "get", "a", *own]) == 1
