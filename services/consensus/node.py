"""The parts of this process, put together: log, core, driver, calls, publisher."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from typing import Final

from quorate.consensus.bootstrap import Start
from quorate.consensus.calls import Calls, Rules
from quorate.consensus.driver import Driver
from quorate.consensus.healing import AILMENT as LOST_LOG
from quorate.consensus.healing import Rejoining
from quorate.consensus.membership import Membership
from quorate.consensus.neighbours import Times
from quorate.consensus.publisher import Publisher
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import Entry, EntryKind, HardState, RaftConfig
from quorate.consensus.rebuilding import AILMENT as LOST_DATABASE
from quorate.consensus.rebuilding import Rebuilding
from quorate.consensus.replacing import Replacing
from quorate.consensus.wal import Wal
from quorate.node.config import Config
from quorate.wire.sockets import Endpoint

_ALL_BYTES: Final = 1 << 62


@dataclass(slots=True)
class Node:
    """A member that has its log, but no peers yet."""

    driver: Driver
    calls: Calls
    publisher: Publisher
    rejoining: Rejoining
    replacing: Replacing
    rebuilding: Rebuilding


def known_membership(membership: Membership, entries: list[Entry], index: int) -> Membership:
    """`membership` after those of `entries` that follow it, up to `index`."""
    for entry in entries:
        if membership.index < entry.index <= index:
            change = membership.with_conf if entry.kind == EntryKind.CONF else membership.with_attributes
            membership = change(entry.index, entry.payload)
    return replace(membership, index=max(index, membership.index))


def hard_state_of(wal: Wal) -> HardState:
    """What the log says; nothing before its beginning is undecided."""
    state = wal.hard_state
    return state._replace(commit=max(state.commit, wal.first_index() - 1))


def assemble(config: Config, start: Start, endpoint: Endpoint, rng: random.Random) -> Node:
    """The member, ready to be connected and started."""
    wal, meta = start.wal, start.meta
    state = hard_state_of(wal)
    base = max(state.commit, meta.membership.index)
    membership = known_membership(meta.membership, wal.recovered, base)
    core = RaftCore(
        RaftConfig(
            id=meta.member_id,
            election_ticks=config.election_timeout // config.heartbeat_interval,
            pre_vote=config.pre_vote,
        ),
        rng,
        hard_state=state,
        conf_state=membership.conf,
        base_index=base,
        base_term=wal.term(base),
        entries=wal.entries(base + 1, wal.last_index + 1, _ALL_BYTES) if wal.last_index > base else (),
        storage=wal,
        applied_index=base,
    )
    driver = Driver(
        asyncio.get_running_loop(),
        endpoint,
        core,
        wal,
        replace(meta, membership=membership),
        start.meta_files,
        base,
        Times(config.heartbeat_interval / 1000, config.election_timeout / 1000),
        config.snapshot_catchup_entries,
    )
    calls = Calls(driver, Rules(config.strict_reconfig_check, config.max_learners))
    publisher = Publisher(driver, config.name, config.advertise_client_urls)
    rejoining = Rejoining(driver, calls)
    rebuilding = Rebuilding(driver)

    def look(now: float) -> None:
        calls.look(now)
        publisher.look(now)
        rejoining.look(now)
        rebuilding.look(now)

    def publish() -> None:
        """At once, not at the next tick: clients wait for it."""
        publisher.look(time.monotonic())
        driver.schedule()

    def ailments() -> list[str]:
        return [LOST_LOG] * rejoining.is_recovering + [LOST_DATABASE] * rebuilding.is_waiting

    driver.on_call = calls.take
    driver.on_peer_call = calls.take_peer
    driver.on_tick = look
    driver.ailments = ailments
    driver.on_leader = publish
    driver.on_membership = lambda: look(time.monotonic())
    return Node(driver, calls, publisher, rejoining, Replacing(driver, calls), rebuilding)
