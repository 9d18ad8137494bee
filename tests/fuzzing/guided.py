"""One target under atheris, whose libFuzzer looks for inputs that reach code not seen before: a process of its own.

    python -m tests.fuzzing.guided NAME [libFuzzer's arguments, directories of inputs]

The target is imported while atheris watches, so that nothing of Quorate may be imported before.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

import atheris


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    logging.disable()
    with atheris.instrument_imports(include=["quorate"]), contextlib.redirect_stdout(sys.stderr):
        from tests.fuzzing.targets import target

        chosen = target(name)
    directories = [Path(argument) for argument in arguments if not argument.startswith("-")]
    for number, seed in enumerate(chosen.seeds()):
        (directories[0] / f"seed-{number:03}").write_bytes(seed)

    def one(data: bytes) -> None:  # atheris takes what is returned for an order
        chosen.run(data)

    with chosen.world():
        atheris.Setup([sys.argv[0], *arguments], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
