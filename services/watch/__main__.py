"""The watch process as a list of its parts."""

from __future__ import annotations

from quorate.node import lifecycle, logs
from quorate.node.clock import SystemClock
from quorate.node.config import Config
from quorate.watch.service import Service
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint


def main(config: Config) -> None:
    """Serve until the process is asked to stop."""
    endpoint = Endpoint(config.run_path, Address(Part.WATCH))
    service = Service(endpoint, config, SystemClock(), logs.named("watch"))
    lifecycle.on_stop(service.stop)
    try:
        service.run()
    finally:
        endpoint.close()


if __name__ == "__main__":
    lifecycle.run("watch", main)
