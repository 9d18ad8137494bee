"""Settings whose feature Quorate does not have: each is refused with one sentence instead of being ignored.

A feature that arrives takes its lines away; nothing else has to change.
"""

from __future__ import annotations

from typing import Final

from quorate.node.config import Config

TRACING: Final = "distributed tracing is not available"

NOT_AVAILABLE: Final = {  # attribute -> why, when it has another value than its default
    "enable_pprof": "profiles are not available",
    "enable_distributed_tracing": TRACING,
    "distributed_tracing_address": TRACING,
    "distributed_tracing_service_name": TRACING,
    "distributed_tracing_instance_id": TRACING,
    "distributed_tracing_sampling_rate": TRACING,
}


WITHOUT_EFFECT: Final = {  # attribute -> why another value than the default changes nothing
    "snapshot_count": "the log is cut by what storage has made durable",
    "max_snapshots": "there is one database file and no snapshot files beside it",
    "max_wals": "log files are dropped as soon as nobody needs them",
    "backend_bbolt_freelist_type": "the database is SQLite",
    "socket_reuse_address": "it is always set",
    "downgrade_check_time": "a cluster cannot be downgraded",
    "discovery_fallback": "exit is its only value; there is no proxy to fall back to",
    "v2_deprecation": "there is no v2 store",
    "logger": "zap's JSON lines are the only ones",
}


def idle(config: Config) -> list[str]:
    """A sentence for each setting that was changed and has no effect."""
    return [
        f"--{attribute.replace('_', '-')} has no effect: {reason}"
        for attribute, reason in WITHOUT_EFFECT.items()
        if getattr(config, attribute) != Config.model_fields[attribute].default
    ]


def refusal(config: Config) -> str | None:
    """The first thing `config` asks for that is not available, as a sentence; None when all of it is."""
    for attribute, reason in NOT_AVAILABLE.items():
        if getattr(config, attribute) != Config.model_fields[attribute].default:
            return f"--{attribute.replace('_', '-')}: {reason}"
    return None
