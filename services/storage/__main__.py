"""The storage process as a list of its parts."""

from __future__ import annotations

import gc
import sqlite3
import sys
from pathlib import Path

from quorate.node import lifecycle, logs, quarantine
from quorate.node.clock import SystemClock
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.storage import snapshot
from quorate.storage.schema import DamagedDatabase, WrongFormat, tells_damage
from quorate.storage.service import Service
from quorate.storage.settings import lease_ttl_min
from quorate.storage.state import State
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint

SWITCH_INTERVAL_SECONDS = 0.0005  # a reader thread never keeps the loop waiting longer


def main(config: Config) -> None:
    """Serve until the process is asked to stop. A damaged database goes aside, and an empty one takes its place: what
    was in it comes from the log or from another member."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    image: Path | None = None
    damage = ""
    while True:
        gc.unfreeze()
        gc.collect()  # the index of the database before
        if image is not None:
            snapshot.install(image, config.database_path)
        is_anew, damage = bool(damage), ""
        try:
            image = serve(config, is_anew=is_anew)
        except snapshot.BadImage as error:
            image = None
            logs.named("storage").error("an image is damaged; another one is needed", damage=str(error))
            continue
        except WrongFormat as error:
            raise OperatorError(str(error)) from error
        except DamagedDatabase as error:
            damage = str(error)
        except sqlite3.DatabaseError as error:
            if not tells_damage(error):
                raise
            damage = f"the database {config.database_path} is damaged: {error}"
        if damage:
            image = None
            set_aside(config.database_path, damage)
        elif image is None:
            return


def set_aside(database: Path, damage: str) -> None:
    """Move a damaged database that nobody has open to the quarantine."""
    place = quarantine.move_aside(database.parent, [Path(f"{database}{suffix}") for suffix in ("", "-wal", "-shm")])
    logs.named("storage").error(
        "the database is damaged; it is made anew from the log or from another member",
        damage=damage,
        quarantine=str(place),
    )


def serve(config: Config, *, is_anew: bool) -> Path | None:
    """Open everything and serve, with `is_anew` in the place of a damaged database; the image to install when that
    is why it ended."""
    clock = SystemClock()
    log = logs.named("storage")
    state = State(
        config.database_path,
        lease_ttl_min(config.election_timeout),
        config.auth_token_ttl * 1000,
        clock.monotonic(),
    )
    log.info("opened the database", keys=len(state.store.index.live), revision=state.store.revision)
    endpoint = Endpoint(config.run_path, Address(Part.STORAGE))
    service = Service(state, endpoint, config, clock, log, is_anew=is_anew)
    lifecycle.on_stop(service.stop)
    try:
        service.run()
    finally:
        service.close()
        endpoint.close()
        close(state)
    return service.images.to_install


def close(state: State) -> None:
    """Also one whose database can no longer be read."""
    try:
        state.close()
    except sqlite3.DatabaseError as error:
        logs.named("storage").warn("cannot close the database in order", error=str(error))


if __name__ == "__main__":
    lifecycle.run("storage", main)
