"""How far an import is, on the terminal as a bar, elsewhere as a line now and then."""

from __future__ import annotations

import asyncio
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quorate.ctl.backup import say
from quorate.ctl.import_keys import Keys
from quorate.ctl.import_mark import Phase

LOOK_S: Final = 0.2
TELL_S: Final = 30.0


async def show(keys: Keys) -> None:
    """Until it is cancelled."""
    console = Console(stderr=True)
    await (_show_bar(keys, console) if console.is_terminal else _tell(keys))


async def _tell(keys: Keys) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        mark = keys.mark
        say("importing", phase=mark.phase, keys=mark.keys, left=keys.left, revision=mark.revision)


async def _show_bar(keys: Keys, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("")
        while True:
            mark = keys.mark
            at = f"{mark.phase} revision {mark.revision}"
            total = mark.keys + keys.left if mark.phase is Phase.COPYING else mark.keys
            progress.update(bar, description=at, completed=mark.keys, total=total)
            await asyncio.sleep(LOOK_S)
