"""A source with everything an etcd can hold, `quorateutl import` as a process, and what has to be there afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import servers
from quorate.client import Client, methods
from quorate.client.txn import Txn, put
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.auth_pb2 import Permission
from quorate.proto.kv_pb2 import Event, KeyValue
from tests.support.cluster import wait_until

MARK: Final = b"_quorate/import"
LEASE: Final = 77
LEASE_TTL_S: Final = 500
WITHIN_S: Final = 120.0  # no promise: many tests may share the machine
PUTS_PER_TXN: Final = 100


def etcds() -> list[servers.Product]:
    """Every etcd of this machine, one of each version."""
    found: dict[str, servers.Product] = {}
    for path in (None, shutil.which("etcd"), "/usr/bin/etcd"):
        try:
            product = servers.etcd(path)
        except servers.NotInstalledError:
            continue
        found.setdefault(product.version, product)
    return list(found.values())


def fill(client: Client, keys: int = 300) -> None:
    """Keys old and new, empty and large values, a lease with and one without keys, users and roles."""
    for start in range(0, keys, PUTS_PER_TXN):
        numbers = range(start, min(start + PUTS_PER_TXN, keys))
        client.commit(Txn().then(*(put(f"k/{number:04}", f"first {number}") for number in numbers)))
    client.put("k/0001", "second")
    client.delete("k/0002")
    client.put("empty", b"")
    client.put("binary", bytes(range(256)))
    client.put("large", b"x" * 1_400_000)
    client.grant(LEASE_TTL_S, lease_id=LEASE)
    client.grant(LEASE_TTL_S, lease_id=LEASE + 1)
    for number in range(5):
        client.put(f"leased/{number}", b"1", lease=LEASE)
    client.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name="app"))
    grant = Permission(permType=Permission.READWRITE, key=b"k/", range_end=b"k0")
    client.call(methods.ROLE_GRANT_PERMISSION, rpc.AuthRoleGrantPermissionRequest(name="app", perm=grant))
    client.call(methods.ROLE_ADD, rpc.AuthRoleAddRequest(name="root"))
    for user, role in (("root", "root"), ("alice", "app"), ("bob", "app")):
        client.call(methods.USER_ADD, rpc.AuthUserAddRequest(name=user, password=f"{user}'s"))
        client.call(methods.USER_GRANT_ROLE, rpc.AuthUserGrantRoleRequest(user=user, role=role))


class Importing:
    """The command as an operator runs it."""

    def __init__(self, source: str, destination: str, directory: Path, *flags: str) -> None:
        product = servers.quorate()
        self._log = directory / "import.log"
        self._begins = self._log.stat().st_size if self._log.exists() else 0
        words = ("import", "--endpoints", source, "--to", destination, *flags)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quorate.ctl.quorateutl", *words],
                env={**os.environ, **product.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._log.read_bytes()[self._begins :].decode()

    def wait(self) -> int:
        return self.process.wait(WITHIN_S)

    def finish(self) -> None:
        """Interrupt one that follows; it has to come to an end."""
        self.process.send_signal(signal.SIGINT)
        assert self.wait() == 0, self.said

    def wait_said(self, text: str) -> None:
        wait_until(lambda: text in self.said or self.process.poll() is not None, f"import says {text}", WITHIN_S)
        assert text in self.said, self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def importing(source: str, destination: str, directory: Path, *flags: str) -> Iterator[Importing]:
    """A started import that is gone afterwards."""
    command = Importing(source, destination, directory, *flags)
    try:
        yield command
    finally:
        command.kill()


def imported(source: str, destination: str, directory: Path, *flags: str) -> str:
    """Import to the end; what was said."""
    with importing(source, destination, directory, *flags) as command:
        assert command.wait() == 0, command.said
        return command.said


def pairs(client: Client) -> dict[bytes, tuple[bytes, int]]:
    """Value and lease of every key."""
    return {kv.key: (kv.value, kv.lease) for kv in client.get_prefix("").kvs}


def history(client: Client) -> list[tuple[Event.EventType.ValueType, KeyValue]]:
    """Every change of a store that was never compacted."""
    last = client.get("history ends").header.revision
    seen: list[tuple[Event.EventType.ValueType, KeyValue]] = []
    with client.watch(b"\0", b"\0", start_revision=1) as watch:
        for response in watch:
            seen += [(event.type, event.kv) for event in response.events]
            if seen[-1][1].mod_revision >= last:
                return seen
    raise AssertionError("the watch has ended")
