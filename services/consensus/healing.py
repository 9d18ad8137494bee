"""A member whose log or membership is damaged heals itself: it moves them aside and comes back without a vote.

What it promised is lost with its log, so its former self is given up. The leader replaces it by a new id that has no
vote yet (`raft.confchange.replacement`), the member begins an empty log under this id, gets everything from the others,
and is made a voter again when it has caught up (`Rejoining`). The database stays: the log that comes fits it.

Every step is durable before the next, and all that follow a grant are made again when one was cut short:

1. the leader's grant is in `meta.new`;
2. old files go to the quarantine, the mark `recovering` stands, new membership and log are written;
3. `meta.new` goes. From here on this is a member that joins;
4. `recovering` goes when the member votes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quorate.consensus.calls import Calls
from quorate.consensus.driver import Driver
from quorate.consensus.membership import Member, Membership, Meta, pack_meta, unpack_meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.messages import NOBODY, ConfState
from quorate.consensus.replacing import Ask, Claim, Grant, NotGranted
from quorate.consensus.segments import segment_paths, write_durably
from quorate.consensus.wal import Wal
from quorate.consensus.wal_format import DamagedLog, SegmentHeader
from quorate.node import logs, quarantine
from quorate.node.config import Config
from quorate.node.directories import sync_directory
from quorate.node.lifecycle import OperatorError
from quorate.proto import rpc_pb2 as rpc
from quorate.wire.messages import ClusterOp

log = logs.named("healing")

GRANT: Final = "meta.new"
MARK: Final = "recovering"
RETRY_S: Final = 0.5
COMPLAIN_S: Final = 10.0  # between two log lines about the same
AILMENT: Final = "quorate: this member lost its log and is recovering from the others"


class Stopped(Exception):  # noqa: N818 - it names an outcome
    """The node is asked to stop while it waits for the others."""


@dataclass(frozen=True, slots=True)
class Help:
    """How to reach the others, and whether to go on trying."""

    ask: Ask
    is_stopping: Callable[[], bool] = lambda: False


def is_unfinished(directory: Path) -> bool:
    """Whether the leader granted a new id that was not taken yet."""
    return (directory / GRANT).exists()


def heal(config: Config, damage: DamagedLog, help_: Help, segment_bytes: int) -> None:
    """Gets a new id from the leader and begins an empty log. Waits for the others as long as it takes.

    OperatorError when there are no others; then nothing was changed.
    """
    directory = config.wal_path
    claim, urls = _remains(config)
    if not urls:
        raise OperatorError(
            f"{damage}; this member knows no others to recover from: restore a backup with `quorateutl snapshot "
            f"restore` into another --data-dir, or, if there are others, name them in --initial-cluster"
        )
    log.error("the log is damaged; this member recovers from the others", damage=str(damage), file=damage.file)
    grant = _wait_for_grant(claim, urls, help_)
    meta = Meta(
        grant.member_id,
        Membership(grant.cluster_id, 0, ConfState(), {member.id: member for member in grant.members}),
    )
    votes = grant.votes or (directory / MARK).exists()
    write_durably(directory / MARK, json.dumps({"damage": str(damage), "votes": votes}).encode())
    write_durably(directory / GRANT, pack_meta(1, meta))
    begin_anew(config, segment_bytes)


def begin_anew(config: Config, segment_bytes: int) -> None:
    """Takes the granted id: the damaged files go aside and an empty log begins."""
    directory = config.wal_path
    try:
        _, meta = unpack_meta((directory / GRANT).read_bytes())
    except ValueError:
        (directory / GRANT).unlink()
        raise DamagedLog(str(directory / GRANT), 0, "what the leader granted is unreadable") from None
    files = MetaFiles(directory)
    old = [*segment_paths(directory), *files.paths()]
    place = quarantine.move_aside(directory, old)
    files.write(meta)
    fsync = not config.unsafe_no_fsync
    Wal.create(directory, meta.membership.cluster_id, meta.member_id, segment_bytes, fsync=fsync).close()
    (directory / GRANT).unlink()
    sync_directory(directory)
    log.warn("began an empty log under a new id", member_id=f"{meta.member_id:x}", quarantine=str(place))


# --- asking ---


def _remains(config: Config) -> tuple[Claim, list[str]]:
    """Who this member was, as far as that can still be read, and where the others are."""
    directory = config.wal_path
    cluster = own = NOBODY
    others: list[str] = []
    try:
        meta = MetaFiles(directory).read()
    except DamagedLog:
        meta = None
    if meta is not None:
        cluster, own = meta.membership.cluster_id, meta.member_id
        others = [url for member in meta.membership.members.values() if member.id != own for url in member.peer_urls]
    else:
        cluster, own = _ids_in_segments(directory)
    for name, urls in config.initial_members.items():
        if name != config.name:
            others += [url for url in urls if url not in others]
    return Claim(cluster, own, tuple(config.initial_advertise_peer_urls)), others


def _ids_in_segments(directory: Path) -> tuple[int, int]:
    for path in reversed(segment_paths(directory)):
        try:
            header = SegmentHeader.unpack(str(path), path.read_bytes())
        except (DamagedLog, OSError):
            continue
        return header.cluster_id, header.member_id
    return NOBODY, NOBODY


def _wait_for_grant(claim: Claim, urls: list[str], help_: Help) -> Grant:
    """Asks the others in turn, and the leader they name, which may have come after what is left here was written."""
    complained_at = -COMPLAIN_S
    while True:
        failures: list[str] = []
        for url in urls:  # it grows meanwhile
            if help_.is_stopping():
                raise Stopped
            try:
                return help_.ask(url, claim)
            except NotGranted as error:
                failures.append(str(error))
                urls += [leader_url for leader_url in error.leader_urls if leader_url not in urls]
            except (OSError, ValueError, KeyError) as error:
                failures.append(str(error) or type(error).__name__)
        if time.monotonic() - complained_at > COMPLAIN_S:
            complained_at = time.monotonic()
            log.warn("waiting for the others to take this member back", failures=failures)
        time.sleep(RETRY_S)


# --- coming back ---


class Rejoining:
    """Asks for the vote back when the member has caught up, once a second, until it has it.

    It has caught up when its storage has what was committed a tick ago: under writes it never has just what is
    committed now, as storage tells only from time to time how far it is.
    """

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self.recoveries = 0  # since this process began
        self._driver = driver
        self._calls = calls
        self._mark = driver.wal.directory / MARK
        self._next_try = 0.0
        self._goal = 0  # commit index of an earlier look, for storage to reach; 0: none yet
        self.is_recovering = self._mark.exists()
        self._wants_vote = self.is_recovering and _wants_vote(self._mark)

    def look(self, now: float) -> None:
        """Once a tick."""
        driver = self._driver
        if not self.is_recovering or driver.core.leader_id == NOBODY:
            return
        own = driver.membership.members.get(driver.member_id)
        if own is None or not self._has_caught_up():
            return
        committed = driver.core.conf_state_at(driver.core.commit_index)  # a new leader may know of no more than that
        if own.id in (committed.voters if self._wants_vote else committed.members()) and not committed.is_joint:
            self._end(own)
        elif own.is_learner and now >= self._next_try:
            self._next_try = now + 1.0
            request = rpc.MemberPromoteRequest(ID=own.id).SerializeToString()
            self._calls.perform(ClusterOp.MEMBER_PROMOTE, request, lambda _outcome: None)

    def _has_caught_up(self) -> bool:
        goal = self._goal
        if goal and not self._driver.stream.has(goal):
            return False
        self._goal = self._driver.core.commit_index
        return goal > 0

    def _end(self, own: Member) -> None:
        self.is_recovering = False
        self.recoveries += 1
        self._mark.unlink(missing_ok=True)
        sync_directory(self._mark.parent)
        log.warn("recovered from the others", member_id=f"{own.id:x}", votes=not own.is_learner)


def _wants_vote(mark: Path) -> bool:
    """A mark that cannot be read is one of a voter: most members are."""
    try:
        return bool(json.loads(mark.read_bytes())["votes"])
    except (ValueError, KeyError, TypeError):
        return True
