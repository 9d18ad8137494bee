# ruff: noqa: RUF009 - flag() makes a field of its own at each call
"""Every setting of a node, its default and its unit: one frozen dataclass, named as etcd names its flags.

The launcher fills it from flags, environment or file (`settings.py`) and renders it as JSON; the four services read
that JSON with `load`. A flag `--max-txn-ops` is the attribute `max_txn_ops`. Durations are whole milliseconds unless
the comment on the attribute says otherwise. The class an attribute stands in is its heading in `quorate --help`.

What the operator wrote is checked once, on its way in (`flags.py`, `settings.py`, `validation.py`). The services read
what the launcher rendered; a library that checks it again would cost each of them 10 MiB and a tenth of a second.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from quorate.node.places import CONFIG_VARIABLE

DEFAULT_PEER_URL: Final = "http://localhost:2380"
DEFAULT_CLIENT_URL: Final = "http://localhost:2379"
HASH_COST_DEFAULT: Final = 10
HASH_COSTS: Final = range(4, 32)  # that bcrypt has
QUOTA_BYTES_DEFAULT: Final = 2 * 1024**3
COMPACTION_BATCH_LIMIT_DEFAULT: Final = 1000
COMPACTION_SLEEP_MS_DEFAULT: Final = 10

SLOW_REQUEST_MS_DEFAULT: Final = 300

DURATION: Final = "duration"  # on the command line a Go duration such as 1h2m3.5s, here whole milliseconds
URLS: Final = "urls"  # comma separated, each a scheme://host:port
WORDS: Final = "words"  # comma separated

TEXT: Final = "text"  # where a field keeps its sentence


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest value a number may have; None for no limit."""

    lowest: int
    highest: int | None = None


Duration = Annotated[int, DURATION]
Urls = Annotated[list[str], URLS]
Words = Annotated[list[str], WORDS]
Count = Annotated[int, Bounds(0)]


def flag(default: Any, text: str) -> Any:
    """A setting with its default and the sentence `--help` says about it."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={TEXT: text})
    return field(default=default, metadata={TEXT: text})


@dataclass(frozen=True, kw_only=True)
class Member:
    """This member: its name, its files, its addresses and its limits."""

    name: str = flag("default", "Name of this member.")
    data_dir: str = flag("", "Directory of the data; default <name>.etcd in the working directory.")
    wal_dir: str = flag("", "Directory of the write-ahead log when it is not to be inside the data directory.")
    snapshot_count: Count = flag(10_000, "Applied entries between two snapshots on disk.")
    snapshot_catchup_entries: Count = flag(5000, "Log entries kept behind a snapshot for slow followers.")
    heartbeat_interval: int = flag(100, "Milliseconds between two heartbeats.")
    election_timeout: int = flag(1000, "Milliseconds without a leader before an election.")
    initial_election_tick_advance: bool = flag(True, "Shorten the first election timeout after the start.")
    listen_peer_urls: Urls = flag([DEFAULT_PEER_URL], "URLs to listen on for other members.")
    listen_client_urls: Urls = flag([DEFAULT_CLIENT_URL], "URLs to listen on for clients, gRPC and HTTP.")
    listen_client_http_urls: Urls = flag([], "URLs for HTTP clients only; listen-client-urls then serve gRPC only.")
    max_snapshots: Count = flag(5, "Snapshot files to keep, 0 for all.")
    max_wals: Count = flag(5, "Log files to keep, 0 for all.")
    quota_backend_bytes: int = flag(0, "Size at which writes are refused: 0 is 2 GiB, negative is no limit.")
    backend_bbolt_freelist_type: str = flag("map", "Freelist of etcd's own backend; accepted, without effect here.")
    backend_batch_interval: Duration = flag(
        0, "Longest time before a commit of etcd's own backend; accepted, without effect here."
    )
    backend_batch_limit: int = flag(0, "Most operations in such a commit; accepted, without effect here.")
    max_txn_ops: Count = flag(128, "Most operations in one transaction.")
    max_request_bytes: Count = flag(1_572_864, "Largest request a client may send, in bytes.")
    max_concurrent_streams: Annotated[int, Bounds(0, 2**32 - 1)] = flag(
        2**32 - 1, "Streams a client may have open on one connection."
    )
    grpc_keepalive_min_time: Duration = flag(5_000, "Shortest time between two pings of a client.")
    grpc_keepalive_interval: Duration = flag(7_200_000, "Silence after which a client connection is probed; 0: never.")
    grpc_keepalive_timeout: Duration = flag(20_000, "Time for the answer to a probe before the connection is closed.")
    socket_reuse_port: bool = flag(False, "Set SO_REUSEPORT on listeners.")
    socket_reuse_address: bool = flag(False, "Set SO_REUSEADDR on listeners.")
    enable_grpc_gateway: bool = flag(True, "Serve the JSON gateway on the client port.")
    raft_read_timeout: Duration = flag(5_000, "Read timeout of a connection between members, at least 5s.")
    raft_write_timeout: Duration = flag(5_000, "Write timeout of a connection between members, at least 5s.")
    feature_gates: str = flag("", "Experimental features as Name=true,Name=false.")
    memory_mlock: bool = flag(False, "Keep the memory of the process from being swapped out.")
    max_learners: Count = flag(1, "Most learner members in the cluster.")
    bootstrap_defrag_threshold_megabytes: Count = flag(0, "Defragment at start when so much is to be freed; 0: never.")
    warning_apply_duration: Duration = flag(100, "An apply that takes longer is logged as slow.")
    warning_unary_request_duration: Duration = flag(
        SLOW_REQUEST_MS_DEFAULT,
        "A request that takes longer is logged as slow, when another limit than the default is given.",
    )
    watch_progress_notify_interval: Duration = flag(600_000, "Time between progress notifications of an idle watch.")
    downgrade_check_time: Duration = flag(5_000, "Time between two checks of the downgrade state.")


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """The cluster this member founds or joins."""

    initial_advertise_peer_urls: Urls = flag([DEFAULT_PEER_URL], "Peer URLs to tell the other members.")
    advertise_client_urls: Urls = flag([DEFAULT_CLIENT_URL], "Client URLs to tell clients and other members.")
    initial_cluster: str = flag("", "All members as name=url,name=url; default is this member alone.")
    initial_cluster_state: str = flag("new", "'new' to found the cluster, 'existing' to join it.")
    initial_cluster_token: str = flag("etcd-cluster", "Word that keeps two clusters with equal URLs apart.")
    strict_reconfig_check: bool = flag(True, "Refuse membership changes that would lose the quorum.")
    pre_vote: bool = flag(True, "Ask for votes before raising the term.")
    force_new_cluster: bool = flag(False, "Start a new one-member cluster from this member's data.")
    discovery: str = flag("", "URL of a v2 discovery service.")
    discovery_proxy: str = flag("", "HTTP proxy for the discovery service.")
    discovery_fallback: str = flag("exit", "What to do when discovery fails.")
    discovery_srv: str = flag("", "DNS domain to find the members in.")
    discovery_srv_name: str = flag("", "Suffix of the DNS SRV name.")
    discovery_token: str = flag("", "Token of the v3 discovery.")
    discovery_endpoints: Words = flag([], "Endpoints of the v3 discovery.")
    discovery_dial_timeout: Duration = flag(2_000, "Dial timeout of the v3 discovery.")
    discovery_request_timeout: Duration = flag(5_000, "Request timeout of the v3 discovery.")
    discovery_keepalive_time: Duration = flag(2_000, "Keepalive time of the v3 discovery.")
    discovery_keepalive_timeout: Duration = flag(6_000, "Keepalive timeout of the v3 discovery.")
    discovery_insecure_transport: bool = flag(True, "Use the v3 discovery without TLS.")
    discovery_insecure_skip_tls_verify: bool = flag(False, "Do not verify the v3 discovery's certificate.")
    discovery_cert: str = flag("", "Client certificate for the v3 discovery.")
    discovery_key: str = flag("", "Key of that certificate.")
    discovery_cacert: str = flag("", "CA of the v3 discovery.")
    discovery_user: str = flag("", "User of the v3 discovery, as name or name:password.")
    discovery_password: str = flag("", "Password of that user.")


@dataclass(frozen=True, kw_only=True)
class Security:
    """TLS towards clients and towards members, and who may ask."""

    cert_file: str = flag("", "Certificate shown to clients.")
    key_file: str = flag("", "Key of that certificate.")
    client_cert_file: str = flag("", "Certificate shown when this member is a client; default cert-file.")
    client_key_file: str = flag("", "Key of that certificate.")
    client_cert_auth: bool = flag(False, "Demand a client certificate.")
    client_crl_file: str = flag("", "Revoked client certificates.")
    client_cert_allowed_hostname: Words = flag([], "Host names a client certificate may be for.")
    trusted_ca_file: str = flag("", "CA that client certificates are verified with.")
    auto_tls: bool = flag(False, "Serve clients with a certificate made at the start.")
    peer_cert_file: str = flag("", "Certificate shown to members.")
    peer_key_file: str = flag("", "Key of that certificate.")
    peer_client_cert_file: str = flag("", "Certificate shown when dialling members; default peer-cert-file.")
    peer_client_key_file: str = flag("", "Key of that certificate.")
    peer_client_cert_auth: bool = flag(False, "Demand a certificate of members that connect.")
    peer_crl_file: str = flag("", "Revoked member certificates.")
    peer_trusted_ca_file: str = flag("", "CA that member certificates are verified with.")
    peer_cert_allowed_cn: Words = flag([], "Common names a member certificate may have.")
    peer_cert_allowed_hostname: Words = flag([], "Host names a member certificate may be for.")
    peer_auto_tls: bool = flag(False, "Talk to members with a certificate made at the start.")
    peer_skip_client_san_verification: bool = flag(False, "Do not compare a member's address with its certificate.")
    self_signed_cert_validity: Count = flag(1, "Years a certificate made at the start is valid.")  # years
    cipher_suites: Words = flag([], "TLS cipher suites by their IANA names; default: the library's choice.")
    tls_min_version: str = flag("TLS1.2", "Lowest TLS version, TLS1.2 or TLS1.3.")
    tls_max_version: str = flag("", "Highest TLS version, TLS1.2 or TLS1.3.")
    cors: Words = flag(["*"], "Origins allowed for cross-origin requests.")
    host_whitelist: Words = flag(["*"], "Host names accepted from HTTP clients on an insecure port.")


@dataclass(frozen=True, kw_only=True)
class Auth:
    """Tokens and passwords."""

    auth_token: str = flag("simple", "Kind of token: simple, or jwt with its options.")
    auth_token_ttl: int = flag(300, "Seconds a simple token lives.")  # seconds
    bcrypt_cost: int = flag(HASH_COST_DEFAULT, "Cost of a password hash, 4 to 31.")


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Dropping history, and checking that members agree."""

    auto_compaction_mode: str = flag("periodic", "'periodic' keeps a time, 'revision' keeps a number of revisions.")
    auto_compaction_retention: str = flag("0", "What to keep: hours, a duration or revisions; 0 turns it off.")
    compaction_batch_limit: int = flag(
        COMPACTION_BATCH_LIMIT_DEFAULT, "Revisions dropped in one step; accepted, without effect here."
    )
    compaction_sleep_interval: Duration = flag(
        COMPACTION_SLEEP_MS_DEFAULT, "Pause between two steps; accepted, without effect here."
    )
    corrupt_check_time: Duration = flag(0, "Time between two comparisons of the members' data; 0: never.")
    compact_hash_check_time: Duration = flag(60_000, "Time between two comparisons of compaction hashes.")


@dataclass(frozen=True, kw_only=True)
class Logging:
    """Where log lines go and how they look."""

    logger: str = flag("zap", "Kind of logger; zap, etcd's JSON lines, is the only one.")
    log_outputs: Words = flag(["default"], "default, stderr, stdout, systemd/journal or file paths.")
    log_level: str = flag("info", "Least level written: debug, info, warn, error, dpanic, panic or fatal.")
    log_format: str = flag("json", "json or console.")
    enable_log_rotation: bool = flag(False, "Rotate the one file of log-outputs.")
    log_rotation_config_json: str = flag(
        '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
        "How to rotate: megabytes, days, number of old files.",
    )


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """Metrics, profiling and tracing."""

    metrics: str = flag("basic", "basic, or extensive for latency histograms.")
    listen_metrics_urls: Urls = flag([], "Further URLs for /metrics and the health pages.")
    enable_pprof: bool = flag(False, "Serve profiles below /debug/pprof/.")
    enable_distributed_tracing: bool = flag(False, "Send traces with OpenTelemetry.")
    distributed_tracing_address: str = flag("localhost:4317", "Address of the trace collector.")
    distributed_tracing_service_name: str = flag("etcd", "Name of this service in traces.")
    distributed_tracing_instance_id: str = flag("", "Name of this instance in traces.")
    distributed_tracing_sampling_rate: Count = flag(0, "Traces per million requests.")


@dataclass(frozen=True, kw_only=True)
class Unsafe:
    """For tests and rescue only."""

    unsafe_no_fsync: bool = flag(False, "Do not wait for the disk. Data is lost when the machine stops.")


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Accepted for etcd's sake."""

    v2_deprecation: str = flag("write-only", "Phase of the v2 store's removal.")


@dataclass(frozen=True, kw_only=True)
class Quorate:
    """Quorate's own; etcd has no such flag."""

    run_dir: str = flag("", "Directory of the local sockets; default a short path derived from the data directory.")
    api_workers: Annotated[int, Bounds(1, 64)] = flag(1, "API processes that share the client port.")


@dataclass(frozen=True, kw_only=True)
class Config(Quorate, Compatibility, Unsafe, Monitoring, Logging, Compaction, Auth, Security, Clustering, Member):
    """One node's settings, immutable. `data_dir`, `wal_dir` and `run_dir` are absolute once it exists."""

    def __post_init__(self) -> None:
        data_dir = Path(self.data_dir or f"{self.name}.etcd").absolute()
        object.__setattr__(self, "data_dir", str(data_dir))
        if self.wal_dir:
            object.__setattr__(self, "wal_dir", str(Path(self.wal_dir).absolute()))
        object.__setattr__(self, "run_dir", str(Path(self.run_dir or default_run_dir(data_dir)).absolute()))

    @property
    def member_path(self) -> Path:
        return Path(self.data_dir) / "member"

    @property
    def database_path(self) -> Path:
        """The SQLite database, where etcd keeps its own."""
        return self.member_path / "snap" / "db"

    @property
    def wal_path(self) -> Path:
        """Directory of the write-ahead log."""
        return Path(self.wal_dir) if self.wal_dir else self.member_path / "wal"

    @property
    def run_path(self) -> Path:
        """Directory of the local sockets, mode 0700."""
        return Path(self.run_dir)

    @property
    def hash_cost(self) -> int:
        """Cost of a password hash; as in etcd, the default in place of one that bcrypt does not have."""
        return self.bcrypt_cost if self.bcrypt_cost in HASH_COSTS else HASH_COST_DEFAULT

    @property
    def logs_slow_requests(self) -> bool:
        """Each by its name only when a limit was given: measuring costs every call something."""
        return self.warning_unary_request_duration != SLOW_REQUEST_MS_DEFAULT

    @property
    def quota_bytes(self) -> int | None:
        """Size of the store at which writes are refused; None when there is no limit."""
        if self.quota_backend_bytes < 0:
            return None
        return self.quota_backend_bytes or QUOTA_BYTES_DEFAULT

    @property
    def initial_members(self) -> dict[str, list[str]]:
        """Peer URLs by member name as initial-cluster lists them; this member alone when it is empty."""
        if not self.initial_cluster:
            return {self.name: list(self.initial_advertise_peer_urls)}
        return parse_members(self.initial_cluster)

    @property
    def member_local_host(self) -> str:
        """The address that connections to members come from: with SetMemberLocalAddr the first address among the
        advertised peer URLs that others can reach, else empty."""
        if not self.feature_enabled("SetMemberLocalAddr"):
            return ""
        hosts = (urlsplit(url).hostname or "" for url in self.initial_advertise_peer_urls)
        return next(filter(_is_reachable, hosts), "")

    def feature_enabled(self, name: str) -> bool:
        """Whether a feature gate is on; a gate that is not mentioned has etcd 3.6's default."""
        return feature_states(self.feature_gates)[name]


def _is_reachable(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


FEATURE_GATES: Final = {  # etcd 3.6: name -> default; the ones that are on are beta, the others alpha
    "StopGRPCServiceOnDefrag": False,
    "InitialCorruptCheck": False,
    "CompactHashCheck": False,
    "LeaseCheckpoint": False,
    "LeaseCheckpointPersist": False,
    "SetMemberLocalAddr": False,
    "TxnModeWriteWithSharedBuffer": True,
}


def feature_states(text: str) -> dict[str, bool]:
    """State of every gate after `Name=true,Name=false` with AllAlpha and AllBeta; ValueError says what is wrong."""
    given: dict[str, bool] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = (part.strip() for part in pair.partition("="))
        if not separator:
            raise ValueError(f"missing bool value for {name}")
        if name not in FEATURE_GATES and name not in ("AllAlpha", "AllBeta"):
            raise ValueError(f"unrecognized feature gate: {name}")
        if value.lower() not in ("true", "false", "t", "f", "1", "0"):
            raise ValueError(f"invalid value of {name}={value}, err: not a boolean")
        given[name] = value.lower() in ("true", "t", "1")
    states = {
        name: given.get(name, given.get("AllBeta" if default else "AllAlpha", default))
        for name, default in FEATURE_GATES.items()
    }
    if states["LeaseCheckpointPersist"] and not states["LeaseCheckpoint"]:
        raise ValueError("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
    return states


def parse_members(text: str) -> dict[str, list[str]]:
    """Peer URLs by name from `name=url,name=url`, where a name may repeat; ValueError on another form."""
    members: dict[str, list[str]] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, url = pair.partition("=")
        if not separator or not name or not url:
            raise ValueError(f'empty URL given for "{name}"' if name else f"no name given for {pair!r}")
        members.setdefault(name, []).append(url)
    return members


def default_run_dir(data_dir: Path) -> Path:
    """A directory for sockets that is short, the user's own, and the same each time for one data directory.

    Socket paths may have 107 bytes, so they cannot stand below a data directory of any length.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and os.access(runtime, os.W_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:12]
    return base / f"quorate-{os.getuid()}-{digest}"


def render(config: Config, path: Path) -> None:
    """Write `config` where `load` finds it, readable by this user only, whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(asdict(config), indent=1))
    draft.replace(path)


def load(path: Path | None = None) -> Config:
    """The settings rendered for this node: from `path`, or from the file the environment names."""
    source = path or Path(os.environ[CONFIG_VARIABLE])
    return Config(**json.loads(source.read_bytes()))
