"""Patroni members with PostgreSQL beneath them, which keep their leader in the cluster under test.

    with patroni_members(cluster, ("alpha", "beta"), settings) as members:
        members[0].start()

PostgreSQL refuses to run as root, so everything here runs as the user `postgres` and only root can start it.
The postmaster rewrites its environment, hence its pid is taken from its pid file.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import yaml

from bench import servers
from bench.ports import free_ports

USER: Final = "postgres"
SCOPE: Final = "conformance"
IDNA: Final = Path("/usr/lib/python3/dist-packages/idna")  # Debian's urllib3 only recommends it, and needs it for TLS
PASSWORD: Final = "secret"
STOPPED_WITHIN_S: Final = 30.0
LOG_TAIL_BYTES: Final = 6_000


def missing() -> str:
    """Why Patroni cannot be run here, for the reader of a skipped test; empty when it can."""
    if os.geteuid() != 0:
        return "PostgreSQL is started as the user postgres, which only root can do"
    if shutil.which("patroni") is None or shutil.which("psql") is None or _programs() is None:
        return "no Patroni or PostgreSQL found: `apt-get install patroni postgresql`"
    return ""


def _programs() -> Path | None:
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((initdb.parent for initdb in versions), key=lambda path: int(path.parent.name), default=None)


@dataclass(slots=True)
class Member:
    """One Patroni and its PostgreSQL: where they listen, and their processes while they run."""

    name: str
    directory: Path
    database_port: int
    rest_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def configuration(self) -> Path:
        """Patroni's file, for patronictl as well."""
        return self.directory / f"{self.name}.yml"

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        """Start Patroni, which creates or takes up its database as the cluster demands."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                ["patroni", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                user=USER,
                group=USER,
                extra_groups=(),
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to Patroni and to the postmaster, whose children end with it; returns when both are gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        postmaster = self._postmaster()
        if postmaster is None:
            return
        with suppress(ProcessLookupError):
            os.kill(postmaster, signal.SIGKILL)
        servers.wait_until(lambda: _is_gone(postmaster), STOPPED_WITHIN_S, f"postmaster of {self.name} ends")

    def _postmaster(self) -> int | None:
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.directory / self.name / "postmaster.pid").read_text().splitlines()[0])
            return None if _is_gone(pid) else pid
        return None

    def state(self) -> dict[str, Any]:
        """What Patroni says of itself: role, state, timeline; empty while nobody answers."""
        try:
            with urlopen(f"http://{servers.HOST}:{self.rest_port}/patroni", timeout=5) as answer:
                said = answer.read()
        except HTTPError as not_well:
            said = not_well.read()
        except (URLError, OSError):
            return {}
        with suppress(ValueError):
            state: dict[str, Any] = json.loads(said)
            return state
        return {}

    def is_leader(self) -> bool:
        """Whether it holds the leader key and its database takes writes."""
        url = f"http://{servers.HOST}:{self.rest_port}/primary"
        with suppress(URLError, OSError), urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def is_replica(self) -> bool:
        """Whether its database runs and follows another."""
        state = self.state()
        return (state.get("role"), state.get("state")) == ("replica", "running")

    def sql(self, statement: str) -> str:
        """The answer of the database, unaligned; CalledProcessError when it refuses."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]
        address = ["-h", servers.HOST, "-p", str(self.database_port), "-U", USER, "-d", "postgres"]
        environment = os.environ | {"PGPASSWORD": PASSWORD, "PGCONNECT_TIMEOUT": "5"}
        ran = subprocess.run([*command, *address], capture_output=True, text=True, check=True, env=environment)
        return ran.stdout.strip()

    def words(self) -> list[str]:
        """The column of the table `kept`; empty while it cannot be read."""
        with suppress(subprocess.CalledProcessError):
            return self.sql("select word from kept").splitlines()
        return []

    def log_tail(self) -> str:
        """The end of Patroni's and PostgreSQL's output."""
        with suppress(OSError):
            return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return ""


def _is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@contextmanager
def patroni_members(
    endpoints: Sequence[str], names: Sequence[str], dynamic: dict[str, Any], **etcd3: str | bool
) -> Iterator[list[Member]]:
    """Members that are configured but not started; afterwards all are killed and their data is removed.

    `dynamic` is Patroni's dynamic configuration, `etcd3` adds to how it reaches the cluster
    (username, password, use_proxies).
    """
    owner = pwd.getpwnam(USER)
    directory = Path(tempfile.mkdtemp(prefix="patroni-"))
    os.chown(directory, owner.pw_uid, owner.pw_gid)
    ports = free_ports(2 * len(names))
    members = [Member(name, directory, ports.pop(), ports.pop()) for name in names]
    for member in members:
        settings = _settings(member, {"hosts": list(endpoints)} | etcd3, dynamic)
        member.configuration.write_text(yaml.safe_dump(settings))
    try:
        yield members
    except BaseException:
        for member in members:
            print(f"--- log of {member.name}\n{member.log_tail()}")
        raise
    finally:
        for member in members:
            member.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _settings(member: Member, etcd3: dict[str, Any], dynamic: dict[str, Any]) -> dict[str, Any]:
    rest = f"{servers.HOST}:{member.rest_port}"
    database = f"{servers.HOST}:{member.database_port}"
    return {
        "scope": SCOPE,
        "name": member.name,
        "restapi": {"listen": rest, "connect_address": rest},
        "etcd3": etcd3,
        "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync", "data-checksums"]},
        "postgresql": {
            "listen": database,
            "connect_address": database,
            "data_dir": str(member.directory / member.name),
            "bin_dir": str(_programs()),
            "pgpass": str(member.directory / f"{member.name}.pgpass"),
            "authentication": {
                "superuser": {"username": USER, "password": PASSWORD},
                "replication": {"username": "replicator", "password": PASSWORD},
            },
            "pg_hba": [
                "local all all trust",
                f"host all all {servers.HOST}/32 md5",
                f"host replication replicator {servers.HOST}/32 md5",
            ],
            "parameters": {"unix_socket_directories": str(member.directory), "fsync": "off"},
            "basebackup": ["no-sync", {"checkpoint": "fast"}],
        },
    }
