"""The settings of a simulated node: the real ones, with the log and the sockets on a simulated disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from quorate.node.config import Config
from tests.simulation.whole.disk import SimPath


@dataclass(frozen=True, slots=True)
class NodeKnobs:
    """What an operator may choose differently for each node, and change with a restart."""

    heartbeat_ms: int = 100
    election_ms: int = 1000
    catchup_entries: int = 50
    pre_vote: bool = True
    segment_bytes: int = 96 * 1024
    compaction: tuple[str, str] = ("periodic", "0")  # mode and retention
    corrupt_check_s: int = 0
    token_ttl_s: int = 300


@dataclass(frozen=True, kw_only=True)
class SimConfig(Config):
    """Paths of the log are simulated; the database is a real file in a temporary directory."""

    base: str
    host: str

    @property
    def member_path(self) -> Path:
        return cast("Path", SimPath("/", self.host))

    @property
    def wal_path(self) -> Path:
        return cast("Path", SimPath("/", self.host, "wal"))

    @property
    def run_path(self) -> Path:
        return cast("Path", SimPath("/", self.host, "run"))

    @property
    def database_path(self) -> Path:
        return Path(self.base) / self.host / "snap" / "db"


def peer_url(number: int) -> str:
    return f"http://10.0.0.{number}:2380"


def make_config(base: str, name: str, number: int, founders: dict[str, int], state: str, knobs: NodeKnobs) -> SimConfig:
    """Of node `number`; `founders` are the names and numbers of all members it begins with."""
    return SimConfig(
        base=base,
        host=name,
        name=name,
        data_dir=f"/{name}",
        run_dir=f"/{name}/run",
        initial_cluster=",".join(f"{member}={peer_url(at)}" for member, at in founders.items()),
        initial_cluster_state=state,
        initial_advertise_peer_urls=[peer_url(number)],
        advertise_client_urls=[f"http://10.0.0.{number}:2379"],
        heartbeat_interval=knobs.heartbeat_ms,
        election_timeout=knobs.election_ms,
        snapshot_catchup_entries=knobs.catchup_entries,
        pre_vote=knobs.pre_vote,
        auth_token_ttl=knobs.token_ttl_s,
        auto_compaction_mode=knobs.compaction[0],
        auto_compaction_retention=knobs.compaction[1],
        corrupt_check_time=knobs.corrupt_check_s * 1000,
        feature_gates="CompactHashCheck=true" if knobs.corrupt_check_s else "",
    )
