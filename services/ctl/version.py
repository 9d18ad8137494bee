"""`version`: of this program, and of the API it speaks."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Final

from quorate.ctl.commands import PROGRAM, command
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings

API_VERSION: Final = "3.6"


def own_version() -> str:
    """The version that is installed; "unknown" in a checkout that is not."""
    try:
        return installed("quorate")
    except PackageNotFoundError:
        return "unknown"


@command("")
def version(settings: Settings, words: tuple[str, ...]) -> None:
    """Print the version of quoratectl."""
    line(f"{PROGRAM} version: {own_version()}")
    line(f"API version: {API_VERSION}")
