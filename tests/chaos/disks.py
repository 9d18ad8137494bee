"""A disk of its own for each node: a file system in a file, whose power can be cut.

What a process wrote and did not sync is in the kernel's pages of the mounted file system and not yet in the file. So a
copy of the file, taken when all processes are dead, is what the disk would hold after a power cut; it is mounted in the
place of the old one, and the file system's own recovery runs as after any crash.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

IMAGE_BYTES: Final = 256 << 20  # sparse: what is used costs space
# The journal commits when asked to, not by itself: more is lost.
OPTIONS: Final = "loop,commit=600,noatime"
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Disk:
    """A file system mounted at `mount_point`."""

    def __init__(self, mount_point: Path) -> None:
        self.mount_point = mount_point
        self.cuts = 0
        self._image = mount_point.with_suffix(".image")

    def create(self) -> None:
        """Make it, empty, and mount it."""
        with self._image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self.mount_point.mkdir()
        self._mount()

    def cut_power(self) -> None:
        """Lose what was not synced. All processes that use it are dead."""
        after = self._image.with_suffix(f".{self.cuts}")
        _run("cp", "--sparse=always", str(self._image), str(after))
        self.unmount()
        after.replace(self._image)
        self.cuts += 1
        self._mount()

    def sync(self) -> None:
        """Return when everything written so far outlives a power cut."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            if _libc.syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), "syncfs failed")
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Take it away, whoever uses it."""
        _run("umount", "--lazy", str(self.mount_point))

    def _mount(self) -> None:
        _run("mount", "-o", OPTIONS, str(self._image), str(self.mount_point))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@cache
def why_no_disks() -> str:
    """Why file systems cannot be mounted here; empty if they can."""
    if os.geteuid() != 0:
        return "mounting a disk takes root"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed"
    with tempfile.TemporaryDirectory() as directory:
        disk = Disk(Path(directory) / "disk")
        try:
            disk.create()
        except (OSError, subprocess.SubprocessError) as error:
            return f"a disk cannot be mounted: {error}"
        disk.unmount()
    return ""
