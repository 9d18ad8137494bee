"""What storage reads of the node's configuration, and what it makes of it."""

from __future__ import annotations

from math import ceil
from typing import Protocol

from quorate.storage.corruption import Corruption


class Settings(Protocol):
    """What storage reads of the node's configuration."""

    @property
    def election_timeout(self) -> int: ...
    @property
    def quota_bytes(self) -> int | None: ...
    @property
    def api_workers(self) -> int: ...
    @property
    def auto_compaction_mode(self) -> str: ...
    @property
    def auto_compaction_retention(self) -> str: ...
    @property
    def corrupt_check_time(self) -> int: ...
    @property
    def compact_hash_check_time(self) -> int: ...
    @property
    def warning_apply_duration(self) -> int: ...
    @property
    def bootstrap_defrag_threshold_megabytes(self) -> int: ...
    def feature_enabled(self, name: str) -> bool: ...


def lease_ttl_min(election_timeout_ms: int) -> int:
    """The shortest TTL in seconds: no lease may end within an election."""
    return ceil(1.5 * election_timeout_ms / 1000)


def corruption_of(settings: Settings, now: float) -> Corruption:
    """When the settings want the members' data compared."""
    compaction_ms = settings.compact_hash_check_time if settings.feature_enabled("CompactHashCheck") else 0
    wants_initial = settings.feature_enabled("InitialCorruptCheck")
    return Corruption(settings.corrupt_check_time / 1000, compaction_ms / 1000, wants_initial, now)
