"""The storage process as a list of its parts."""

from __future__ import annotations

import gc
import sqlite3
import sys
from pathlib import Path

from quorate.node import lifecycle, logs
from quorate.node.clock import SystemClock
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.storage import snapshot
from quorate.storage.schema import DamagedDatabase
from quorate.storage.service import Service
from quorate.storage.settings import lease_ttl_min
from quorate.storage.state import State
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint

SWITCH_INTERVAL_SECONDS = 0.0005  # a reader thread never keeps the loop waiting longer


def main(config: Config) -> None:
    """Serve until the process is asked to stop."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    image: Path | None = None
    while True:
        if image is not None:
            gc.unfreeze()
            gc.collect()  # the index of the database that is replaced
            snapshot.install(image, config.database_path)
        try:
            image = serve(config)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            raise OperatorError(f"the database {config.database_path} is damaged: {error}") from error
        except DamagedDatabase as error:
            raise OperatorError(f"{config.database_path}: {error}") from error
        if image is None:
            return


def serve(config: Config) -> Path | None:
    """Open everything and serve; the image to install when that is why it ended."""
    clock = SystemClock()
    log = logs.named("storage")
    try:
        state = State(
            config.database_path,
            lease_ttl_min(config.election_timeout),
            config.auth_token_ttl * 1000,
            clock.monotonic(),
        )
    except DamagedDatabase as damage:
        raise OperatorError(str(damage)) from damage
    log.info("opened the database", keys=len(state.store.index.live), revision=state.store.revision)
    endpoint = Endpoint(config.run_path, Address(Part.STORAGE))
    service = Service(state, endpoint, config, clock, log)
    lifecycle.on_stop(service.stop)
    try:
        service.run()
    finally:
        service.close()
        endpoint.close()
        state.close()
    return service.image_to_install


if __name__ == "__main__":
    lifecycle.run("storage", main)
