"""Damaged files are moved aside, never deleted at once: what they still hold may be all that somebody has.

A quarantine is a directory beside the files, on the same file system, so that moving is a rename; the newest few stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from quorate.node.directories import sync_directory

NAME: Final = "quarantine"
KEPT_MAX: Final = 3  # one damage after the other must not fill the disk


def move_aside(directory: Path, paths: Iterable[Path]) -> Path:
    """Move files of `directory` to a place of their own below it, durable when this returns; the place.

    Those that are not there any more are left out, so that a move that was cut short is made whole by another.
    """
    quarantine = directory / NAME
    quarantine.mkdir(mode=0o700, exist_ok=True)
    place = _new_place(quarantine)
    for path in paths:
        if path.exists():
            path.rename(place / path.name)
    for changed in (place, quarantine, directory):
        sync_directory(changed)
    for outdated in sorted(path for path in quarantine.iterdir() if path.is_dir())[:-KEPT_MAX]:
        shutil.rmtree(outdated)
    return place


def _new_place(quarantine: Path) -> Path:
    """Places sort by their age."""
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    place = quarantine / name
    place.mkdir(mode=0o700)
    return place
