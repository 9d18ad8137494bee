"""PROCESS consensus: settings, log, core, peers, local sockets. `python -m quorate.consensus`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import time
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from quorate.consensus import bootstrap, joining
from quorate.consensus.alone import go_alone
from quorate.consensus.bootstrap import Start
from quorate.consensus.connections import Contexts, listen
from quorate.consensus.driver import Driver
from quorate.consensus.handshake import REMOVED_TEXT
from quorate.consensus.healing import Help, Stopped
from quorate.consensus.inquiries import Inquiries
from quorate.consensus.node import assemble
from quorate.consensus.peers import Peers, PeerSettings
from quorate.consensus.raft.messages import NOBODY
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.consensus.replacing import asking
from quorate.consensus.round_trips import RoundTrips
from quorate.consensus.snapshots import Snapshots
from quorate.consensus.wal import SEGMENT_BYTES
from quorate.consensus.wal_format import DamagedLog
from quorate.node import flags, lifecycle, logs, tls
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError, StartAgain
from quorate.node.tls import TlsFiles
from quorate.wire.messages import Part
from quorate.wire.sockets import Address, Endpoint

if TYPE_CHECKING:
    from quorate.consensus.stats import Stats
    from quorate.node.expiry import Expiry

log = logs.named()

SEGMENT_VARIABLE: Final = "QUORATE_WAL_SEGMENT_BYTES"  # for tests on small disks
REMOVED_GRACE_S: Final = 1.0  # etcd: a removed member stops a second later


async def main(config: Config) -> None:
    """The life of the process."""
    loop = asyncio.get_running_loop()
    stop = lifecycle.stop_event()
    files = tls.peer_side(config)
    server_context, client_context = peer_contexts(files)
    expiry = expiry_of(files)
    listeners = [
        (one, is_encrypted(url, server_context))
        for url in config.listen_peer_urls
        for one in listen(url, config.socket_reuse_port)
    ]
    start = await begun(config, client_context, stop)
    if start is None:
        return
    snapshots_path = config.database_path.parent
    bootstrap.prepare_directory(snapshots_path)
    config.run_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoint = Endpoint(config.run_path, Address(Part.CONSENSUS))
    node = assemble(config, start, endpoint, random.Random(start.meta.member_id ^ time.time_ns()))  # noqa: S311 - no secret
    driver = node.driver
    settings = peer_settings(config, start, files, server_context, client_context)
    snapshots = Snapshots(loop, driver, settings, snapshots_path)
    removed = asyncio.Event()
    peers = Peers(loop, settings, driver.membership, driver.hear, removed.set, snapshots.receive)
    peers.on_replace = node.replacing.answer
    driver.network, driver.courier = peers, snapshots
    round_trips = RoundTrips(peers)

    @cache
    def stats() -> Stats:
        from quorate.consensus.stats import Stats  # only where somebody scrapes: it costs memory and start-up time

        return Stats(
            driver, peers, snapshots, node.rejoining, node.rebuilding, round_trips, node.calls.promotions, expiry
        )

    driver.on_stats = lambda: stats().render()
    driver.on_removed = removed.set
    peers.answer = Inquiries(loop, driver, node.calls.perform, endpoint.incarnation).answer
    peers.start(listeners)
    driver.start(config.api_workers, hasten=start.is_new or config.initial_election_tick_advance)
    watching = [loop.create_task(round_trips.watch())]
    if expiry is not None:
        watching.append(loop.create_task(expiry.watch()))
    try:
        await ended(driver, stop, removed)
    except DamagedLog as damage:
        raise StartAgain(f"{damage}; starting again to recover from the others") from damage
    finally:
        for task in watching:
            task.cancel()
        driver.stop()
        snapshots.close()
        peers.close()
        endpoint.close()
    start.wal.close()


async def begun(config: Config, client_context: Contexts, stop: asyncio.Event) -> Start | None:
    """What the disk holds, or what a new member has instead; None when the process was asked to stop meanwhile."""
    segment_bytes = int(os.environ.get(SEGMENT_VARIABLE, SEGMENT_BYTES))
    fetch = joining.fetch_members(client_context)
    help_ = Help(asking(client_context), stop.is_set)
    try:
        start = await asyncio.to_thread(bootstrap.start, config, fetch, segment_bytes, help_)
    except Stopped:
        return None
    if config.force_new_cluster and not start.is_new:
        go_alone(start)
    return start


async def ended(driver: Driver, stop: asyncio.Event, removed: asyncio.Event) -> None:
    """Returns when the process has been asked to stop and leads no longer; raises what made it fail."""
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in (stop, removed)]
    try:
        await asyncio.wait([driver.failure, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if driver.failure.done():
            driver.failure.result()
        if removed.is_set():
            log.warn(REMOVED_TEXT, local_member_id=f"{driver.member_id:x}")
            await asyncio.sleep(REMOVED_GRACE_S)
            raise OperatorError(REMOVED_TEXT)
        await hand_over(driver)
    finally:
        for task in waiting:
            task.cancel()


async def hand_over(driver: Driver) -> None:
    """A leader that goes makes the longest connected voter its successor, and waits for it for two elections."""
    core = driver.core
    voters = [number for number in driver.membership.conf.voters if number != driver.member_id]
    connected = [(since, number) for number in voters if (since := driver.network.active_since(number)) is not None]
    if core.role is not RaftRole.LEADER or not connected:
        return
    successor = min(connected)[1]
    log.info("leadership transfer starting", current_leader=f"{driver.member_id:x}", transferee=f"{successor:x}")
    if core.transfer_leader(successor) is not None:
        return
    driver.schedule()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * driver.times.election_s):
            while core.leader_id in (driver.member_id, NOBODY):
                driver.role_changed.clear()
                await driver.role_changed.wait()
    log.info("leadership transfer finished", leader=f"{core.leader_id:x}")


def expiry_of(files: TlsFiles) -> Expiry | None:
    """The certificates members see, if they see any; only then the libraries for it are loaded."""
    if not files.enabled:
        return None
    from quorate.node.expiry import Expiry

    return Expiry("peer", files)


def is_encrypted(url: str, context: ssl.SSLContext | None) -> bool:
    """Whether the peer url is served with TLS; OperatorError if it should be and cannot."""
    if not flags.is_encrypted(url):
        return False
    if context is None:
        address = url.partition("://")[2]
        raise OperatorError(f"cannot listen on TLS for {address}: KeyFile and CertFile are not presented")
    return True


def peer_settings(
    config: Config, start: Start, files: TlsFiles, server_context: ssl.SSLContext | None, client_context: Contexts
) -> PeerSettings:
    """How this member meets the others."""
    return PeerSettings(
        start.meta.member_id,
        dial_timeout_s=1.0 + config.election_timeout / 1000,
        silence_ms=max(config.raft_read_timeout, config.raft_write_timeout),
        server_context=server_context,
        client_context=client_context,
        judge=partial(tls.check_peer, files),
        local_host=config.member_local_host,
    )


def peer_contexts(files: TlsFiles) -> tuple[ssl.SSLContext | None, Contexts]:
    """TLS for the peer port, where there are certificates, and for dialling."""
    dialling = tls.DialContexts(files).context
    if not files.enabled:
        return None, dialling
    try:
        dialling()
        return tls.server_context(files), dialling
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot use the peer certificates: {error}") from error


if __name__ == "__main__":
    lifecycle.run("consensus", main)
