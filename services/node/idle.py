"""Settings that can change nothing here: accepted for etcd's sake, with one sentence in the log."""

from __future__ import annotations

from typing import Final

from quorate.node.config import Config
from quorate.node.flags import FLAGS

WITHOUT_EFFECT: Final = {  # attribute -> why another value than the default changes nothing
    "snapshot_count": "the log is cut by what storage has made durable",
    "max_snapshots": "there is one database file and no snapshot files beside it",
    "max_wals": "log files are dropped as soon as nobody needs them",
    "backend_batch_interval": "rows are written as soon as there is time, within 50 ms",
    "backend_batch_limit": "rows are written in slices that delay nobody",
    "compaction_batch_limit": "rows are dropped in slices that delay nobody",
    "compaction_sleep_interval": "rows are dropped whenever there is nothing else to do",
    "backend_bbolt_freelist_type": "the database is SQLite",
    "socket_reuse_address": "it is always set",
    "downgrade_check_time": "a cluster cannot be downgraded",
    "discovery_fallback": "exit is its only value; there is no proxy to fall back to",
    "v2_deprecation": "there is no v2 store",
    "logger": "zap's JSON lines are the only ones",
}


def sentences(config: Config) -> list[str]:
    """A sentence for each setting that was changed and has no effect."""
    return [
        f"--{attribute.replace('_', '-')} has no effect: {reason}"
        for attribute, reason in WITHOUT_EFFECT.items()
        if getattr(config, attribute) != FLAGS[attribute.replace("_", "-")].default
    ]
