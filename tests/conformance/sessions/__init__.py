"""The scripted sessions, and where real etcd's transcripts of them are kept."""

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
GOLDEN: Final = HERE.parent / "golden"
ALL: Final = frozenset(path.stem for path in HERE.glob("*.session"))
GATEWAY: Final = frozenset(path.stem for path in HERE.glob("*.http"))

# The sessions whose every command is supported; others are recorded and wait for their feature.
SUPPORTED: Final = (
    "put",
    "get",
    "get_count",
    "del",
    "txn",
    "compaction",
    "endpoint",
    "endpoints3",
    "member_list",
    "alarm",
    "snapshot",
    "global_flags",
    "watch",
    "lease",
    "lock",
    "elect",
    "move_leader",
    "member_change",
    "auth",
)
SUPPORTED_GATEWAY: Final = ("gateway_kv", "gateway_watch", "gateway_lease", "gateway_lock", "gateway_auth")
