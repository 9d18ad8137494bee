"""Settings in, the founders looked for, settings with --initial-cluster out; then this process becomes the supervisor.

A member that has a log comes back from it and looks for nobody.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from quorate.consensus.membership import member_id
from quorate.consensus.segments import segment_paths
from quorate.discovery import records, registry, v2, v3
from quorate.discovery.failures import DiscoveryFailed
from quorate.discovery.registry import Registry
from quorate.node import config as configuration
from quorate.node import launch, logs, run_directory
from quorate.node.config import Config
from quorate.node.places import CONFIG_VARIABLE, RUN_LOCK_VARIABLE

log = logs.named("discovery")


def main() -> None:
    """Does not return."""
    path = Path(os.environ[CONFIG_VARIABLE])
    config = configuration.load(path)
    logs.start(config, "discovery")

    def leave() -> None:
        run_directory.leave(config.run_path, int(os.environ[RUN_LOCK_VARIABLE]))

    def stopped(number: int, _frame: object) -> None:
        leave()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    if not segment_paths(config.wal_path):
        try:
            settings = found(config)
        except (DiscoveryFailed, OSError) as error:
            sentence = str(error)
            log.fatal("discovery failed", error=sentence)
            sys.stderr.write(f"quorate: {sentence}\n")
            leave()
            sys.exit(launch.EXIT_ERROR)
        configuration.render(replace(config, **settings), path)
    launch.exec_supervisor(dict(os.environ))


def found(config: Config) -> dict[str, Any]:
    """The settings that make up for the discovery; DiscoveryFailed when the cluster is not found."""
    if config.discovery_srv:
        return {"initial_cluster": records.initial_cluster(config)}
    if config.initial_cluster_state == "existing":
        raise DiscoveryFailed("discovery URL should not be set when joining existing initial cluster")
    token = config.discovery or config.discovery_token
    if config.discovery:
        log.warn("v2 discovery is deprecated; use --discovery-endpoints and --discovery-token")
    try:
        return {"initial_cluster": asyncio.run(_joined(config, token)), "initial_cluster_token": token}
    except DiscoveryFailed as reason:
        raise DiscoveryFailed(f"failed to join discovery cluster ({reason})") from reason


async def _joined(config: Config, token: str) -> str:
    own = f"{member_id(config.initial_advertise_peer_urls, token):x}"
    contents = ",".join(f"{config.name}={url}" for url in config.initial_advertise_peer_urls)
    if config.discovery:
        service: Registry = v2.V2Registry(config.discovery, config.discovery_proxy)
        return await registry.join(service, own, contents)
    async with v3.client(config) as client:
        return await registry.join(v3.V3Registry(client, token), own, contents)


if __name__ == "__main__":
    main()
