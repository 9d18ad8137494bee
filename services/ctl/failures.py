"""How a command ends when it does not succeed: a text on standard error and etcdctl's exit status."""

from typing import Final

ERROR: Final = 1
BAD_CONNECTION: Final = 2
INVALID_INPUT: Final = 3
BAD_FEATURE: Final = 4
INTERRUPTED: Final = 5
IO: Final = 6
BAD_ARGUMENTS: Final = 128
KILLED: Final = 255  # a command of `lock` ended by a signal; Go has -1 for that


class Failure(Exception):  # noqa: N818 - it names an outcome
    """Ends the command with this status; the text, if any, is shown as `Error: text`."""

    def __init__(self, text: str, status: int = ERROR) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def bad_arguments(text: str) -> Failure:
    """The arguments are wrong in number or kind."""
    return Failure(text, BAD_ARGUMENTS)
