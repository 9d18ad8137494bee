"""The storage process as a list of its parts."""

from __future__ import annotations

import sys

from quorate.node import lifecycle, logs
from quorate.node.clock import SystemClock
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError
from quorate.storage.schema import DamagedDatabase
from quorate.storage.service import Service, lease_ttl_min
from quorate.storage.state import State
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint

SWITCH_INTERVAL_SECONDS = 0.0005  # a reader thread never keeps the loop waiting longer


def main(config: Config) -> None:
    """Serve until the process is asked to stop."""
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    clock = SystemClock()
    log = logs.named("storage")
    try:
        state = State(config.database_path, lease_ttl_min(config.election_timeout), clock.monotonic())
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


if __name__ == "__main__":
    lifecycle.run("storage", main)
