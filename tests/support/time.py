"""What this machine offers for making clocks jump."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

_LIBRARIES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)
FAKETIME_LIBRARY: Final = next((path for path in _LIBRARIES if Path(path).exists()), "")  # empty: not installed


@cache
def time_namespaces() -> bool:
    """Whether a process may be given a monotonic clock of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    asked = ["unshare", "--time", "--monotonic", "1", "--boottime", "1", "true"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0
