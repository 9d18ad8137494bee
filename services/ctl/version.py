"""`version`: of this program, and of the API it speaks."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Final

from quorate.ctl.flags import PROGRAM, command
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings

API_VERSION: Final = "3.6"


@command("")
def version(settings: Settings, words: tuple[str, ...]) -> None:
    """Print the version of quoratectl."""
    try:
        own = installed("quorate")
    except PackageNotFoundError:
        own = "unknown"
    line(f"{PROGRAM} version: {own}")
    line(f"API version: {API_VERSION}")
