"""PROCESS api: settings, sockets, the ring, the calls, the listener. `python -m quorate.api`."""

from __future__ import annotations

import asyncio
from typing import Final

from quorate.api import assembly, tracing
from quorate.api.ring import Ring
from quorate.node import lifecycle
from quorate.node.config import Config
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint

READY_TIMEOUT_S: Final = 5.0  # etcd: --wait-cluster-ready-timeout; serve by then even if no leader was found
GRACE_S: Final = 5.0  # for calls in progress when the process is asked to stop


async def main(config: Config) -> None:
    """The life of the process: clients connect from the start and are served once the node is there."""
    stop = lifecycle.stop_event()
    sockets = assembly.open_sockets(config)
    number = lifecycle.worker_number()
    config.run_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoint = Endpoint(config.run_path, Address(Part.API, number))
    ring = Ring(endpoint, config.election_timeout / 1000, slow_s=config.warning_unary_request_duration / 1000)
    expiry = assembly.client_expiry(config)
    watches = assembly.make_watches(ring)
    calls = assembly.make_calls(config, ring, watches)
    last_spans = tracing.trace(calls, config) if config.enable_distributed_tracing else None
    listener = assembly.make_listener(config, ring, calls, watches, expiry)
    try:
        async with asyncio.TaskGroup() as tasks:
            clocks = [tasks.create_task(listener.run_clock()), tasks.create_task(ring.fail())]
            if expiry is not None and number == 0:
                clocks.append(tasks.create_task(expiry.watch()))
            if await ring.wait_ready(READY_TIMEOUT_S, stop):
                for one in sockets:
                    assembly.announce(one, await listener.serve(one))
                if number == 0:
                    lifecycle.ready_to_serve(config)
                await stop.wait()
            for clock in clocks:
                clock.cancel()
        await listener.close(GRACE_S)
    finally:
        ring.close()
        if last_spans is not None:
            await asyncio.to_thread(last_spans)


if __name__ == "__main__":
    lifecycle.run("api", main)
