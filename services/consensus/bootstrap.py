"""The first minute of a member: found a cluster, join a running one, or come back from the log.

A data directory with a log decides alone: everything the `initial-*` flags say is ignored then. Errors have etcd's
texts, as operators search for them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from quorate.consensus import healing
from quorate.consensus.healing import Help
from quorate.consensus.joining import FetchMembers, Known, Patience, running_cluster
from quorate.consensus.membership import Member, Membership, Meta, member_id
from quorate.consensus.meta import MetaFiles
from quorate.consensus.raft.messages import ConfState, EntryKind, HardState
from quorate.consensus.segments import DIRECTORY_MODE, DirectoryInUse
from quorate.consensus.wal import SEGMENT_BYTES, NoSpace, Wal
from quorate.consensus.wal_format import DamagedLog
from quorate.node import logs
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

log = logs.named("bootstrap")

KEPT_KINDS: Final = frozenset({int(EntryKind.CONF), int(EntryKind.ATTR)})
BOOTSTRAPPED_TIMEOUT_S: Final = 1.0  # etcd: a new member asks its peers whether it has been here before


@dataclass(slots=True)
class Start:
    """What a member begins with."""

    wal: Wal
    meta: Meta
    meta_files: MetaFiles
    is_new: bool


class AlreadyBootstrapped(OperatorError):  # noqa: N818 - it states a condition
    """This member has been here before: somebody knows it, and its log is gone."""


def start(
    config: Config,
    fetch: FetchMembers,
    segment_bytes: int = SEGMENT_BYTES,
    help_: Help | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
) -> Start:
    """Opens or makes the log; with `help_` a damaged one heals. OperatorError with one sentence if that cannot be."""
    directory = config.wal_path
    had_files = any(path.exists() for path in MetaFiles(directory).paths())
    try:
        if help_ is not None and healing.is_unfinished(directory):
            healing.begin_anew(config, segment_bytes)
        return _begin(config, fetch, segment_bytes, patience)
    except DamagedLog as error:
        damage = error
    except AlreadyBootstrapped:
        if not had_files and config.initial_cluster_state != "existing":
            raise
        damage = DamagedLog(str(directory), 0, "all segments are missing")
    if help_ is None:
        raise OperatorError(str(damage))
    healing.heal(config, damage, help_, segment_bytes)
    return _begin(config, fetch, segment_bytes, patience)


def _begin(config: Config, fetch: FetchMembers, segment_bytes: int, patience: Patience) -> Start:
    directory = config.wal_path
    try:
        prepare_directory(config.member_path)
        prepare_directory(directory)
        if Wal.exists(directory):
            return restart(config, segment_bytes)
        is_joining = config.initial_cluster_state == "existing"
        meta = joined(config, fetch, patience) if is_joining else founded(config, fetch)
        files = MetaFiles(directory)
        files.write(meta)  # before the log: whoever finds a log finds this too
        wal = Wal.create(
            directory, meta.membership.cluster_id, meta.member_id, segment_bytes, fsync=not config.unsafe_no_fsync
        )
    except (DirectoryInUse, NoSpace) as error:
        raise OperatorError(str(error)) from error
    except OSError as error:
        raise OperatorError(f"cannot write to data directory {directory}: {error.strerror}") from error
    log.info("started a new member", member_id=f"{meta.member_id:x}", cluster_id=f"{meta.membership.cluster_id:x}")
    return Start(wal, meta, files, is_new=True)


def prepare_directory(path: Path) -> None:
    """Makes `path` and its parents for this user alone, and proves that it can be written to."""
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    probe = path / ".touch"
    probe.write_bytes(b"")
    probe.unlink()


def restart(config: Config, segment_bytes: int) -> Start:
    """From what is on the disk; a snapshot that was being installed takes the log's place now."""
    directory = config.wal_path
    files = MetaFiles(directory)
    wal = Wal.recover(directory, segment_bytes, fsync=not config.unsafe_no_fsync, keep_kinds=KEPT_KINDS)
    try:
        meta = files.read()
        if meta is None:
            raise DamagedLog(str(directory / "meta.a"), 0, "both copies of the membership are missing")
        if meta.member_id != wal.member_id or meta.membership.cluster_id != wal.cluster_id:
            raise OperatorError(f"the log in {directory} and its membership are of different members")
        index, term = meta.snapshot_index, meta.snapshot_term
        if wal.first_index() <= index and (wal.last_index < index or wal.term(index) != term):
            state = wal.hard_state
            wal.reset(index, term, HardState(max(state.term, term), state.vote if state.term >= term else 0, index))
        if meta.membership.index < wal.first_index() - 1:
            raise DamagedLog(str(directory / "meta.a"), 0, "the membership is older than the log's beginning")
    except BaseException:
        wal.abandon()
        raise
    log.info(
        "restarting local member",
        member_id=f"{meta.member_id:x}",
        cluster_id=f"{wal.cluster_id:x}",
        commit_index=wal.hard_state.commit,
        last_index=wal.last_index,
    )
    return Start(wal, meta, files, is_new=False)


# --- founding ---


def founded(config: Config, fetch: FetchMembers) -> Meta:
    """This member as one of the founders; OperatorError as etcd's."""
    check_names_and_urls(config)
    members = founders(config)
    membership = Membership.founded(list(members.values()))
    own = next(member.id for member in members.values() if member.name == config.name)
    meta = Meta(own, membership)
    refuse_second_bootstrap(meta, config.name, config.initial_members, fetch)
    return meta


def founders(config: Config) -> dict[int, Member]:
    """The members that `--initial-cluster` lists, by their ids; OperatorError if two have the same."""
    members: dict[int, Member] = {}
    for name, urls in config.initial_members.items():
        number = member_id(urls, config.initial_cluster_token)
        if number in members:
            raise OperatorError(f"member exists with identical ID {number:x}")
        members[number] = Member(number, tuple(sorted(urls)), name)
    return members


def check_names_and_urls(config: Config) -> None:
    """What etcd checks of `--initial-cluster` before it founds or joins."""
    urls_by_name = config.initial_members
    if config.name not in urls_by_name:
        raise OperatorError(f'couldn\'t find local name "{config.name}" in the initial cluster configuration')
    every_url = [url for urls in urls_by_name.values() for url in urls]
    if len(set(every_url)) != len(every_url):
        raise OperatorError(f"initial cluster {_as_flag(urls_by_name)} has duplicate url")
    if config.initial_cluster_state != "existing":
        check_advertised(config.name, sorted(config.initial_advertise_peer_urls), sorted(urls_by_name[config.name]))


def check_advertised(name: str, advertised: list[str], listed: list[str]) -> None:
    """The advertised peer urls are this member's entry in `--initial-cluster`, also by another name of the host."""
    if advertised == listed:
        return
    reason = _difference(advertised, listed)
    if not reason:
        return
    own, entry = ",".join(advertised), ",".join(f"{name}={url}" for url in advertised)
    if missing := [f"{name}={url}" for url in listed if url not in advertised]:
        raise OperatorError(
            f"--initial-cluster has {','.join(missing)} but missing from --initial-advertise-peer-urls={own} ({reason})"
        )
    if missing := [url for url in advertised if url not in listed]:
        raise OperatorError(
            f"--initial-advertise-peer-urls has {','.join(missing)} but missing from --initial-cluster={entry}"
        )
    raise OperatorError(f"failed to resolve {own} to match --initial-cluster={entry} ({reason})")


def _difference(left: list[str], right: list[str]) -> str:
    """Empty if the urls lead to the same addresses, else why not."""
    if len(left) != len(right):
        return f"len({_quoted(left)}) != len({_quoted(right)})"
    try:
        resolved = sorted(map(_resolved, left)), sorted(map(_resolved, right))
    except OSError as error:
        return f"failed to resolve: {error.strerror}"
    if resolved[0] == resolved[1]:
        return ""
    for one, other, url, entry in zip(*resolved, left, right, strict=True):
        if one != other:
            return f'"{one}"(resolved from "{url}") != "{other}"(resolved from "{entry}")'
    return ""


def _resolved(url: str) -> str:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        return url
    found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    address = min(found, key=lambda one: one[0] != socket.AF_INET)[4]  # IPv4 first, as Go resolves
    return f"{parts.scheme}://{address[0]}:{parts.port}"


def _quoted(urls: Iterable[str]) -> str:
    return "[" + " ".join(f'"{url}"' for url in urls) + "]"


def _as_flag(urls_by_name: Mapping[str, list[str]]) -> str:
    return ",".join(sorted(f"{name}={url}" for name, urls in urls_by_name.items() for url in urls))


def refuse_second_bootstrap(meta: Meta, name: str, urls_by_name: Mapping[str, list[str]], fetch: FetchMembers) -> None:
    """A member that lost its data must not come back under its old id: it could vote twice."""
    for other, urls in urls_by_name.items():
        if other == name:
            continue
        for url in urls:
            try:
                known = fetch(url, BOOTSTRAPPED_TIMEOUT_S)
            except (OSError, ValueError):
                continue
            if known.cluster_id != meta.membership.cluster_id:
                continue
            if any(member.id == meta.member_id and member.client_urls for member in known.members):
                raise AlreadyBootstrapped(f"member {meta.member_id:x} has already been bootstrapped")
            break


# --- joining ---


def joined(config: Config, fetch: FetchMembers, patience: Patience) -> Meta:
    """This member as one that was added to a running cluster; ids are the cluster's. OperatorError as etcd's.

    AlreadyBootstrapped for one that was here before: what it promised under its id is lost, and a leader counts on it.
    """
    check_names_and_urls(config)
    resolved = cache(_resolved_or_same)
    wanted = {name: sorted(map(resolved, urls)) for name, urls in config.initial_members.items()}

    def own_in(known: Known) -> Member | None:
        try:
            return _matched(known, wanted, resolved)[config.name]
        except OperatorError:
            return None

    peers = {name: urls for name, urls in config.initial_members.items() if name != config.name}
    known = running_cluster(peers, fetch, own_in, patience)
    own = _matched(known, wanted, resolved)[config.name]
    if own.client_urls:
        raise AlreadyBootstrapped(f"member {own.id:x} has already been bootstrapped")
    members = {member.id: member for member in known.members}
    return Meta(own.id, Membership(known.cluster_id, 0, ConfState(), members))


def _matched(known: Known, wanted: Mapping[str, list[str]], resolved: Callable[[str], str]) -> dict[str, Member]:
    """The members under the names that `--initial-cluster` gives their urls; OperatorError if that fits not exactly."""
    told = f"error validating peerURLs {_described(known)}"
    if len(known.members) != len(wanted):
        raise OperatorError(f"{told}: member count is unequal")
    named: dict[str, Member] = {}
    for member in known.members:
        urls = sorted(map(resolved, member.peer_urls))
        name = next((name for name, listed in wanted.items() if listed == urls), None)
        if name is None or name in named:
            raise OperatorError(
                f"{told}: PeerURLs: no match found for existing member ({member.id:x}, "
                f"{_bracketed(member.peer_urls)}), last resolver error (<nil>)"
            )
        named[name] = member
    return named


def _resolved_or_same(url: str) -> str:
    try:
        return _resolved(url)
    except OSError:
        return url


def _bracketed(words: Iterable[str]) -> str:
    return "[" + " ".join(words) + "]"


def _described(known: Known) -> str:
    listed = " ".join(f"&{{ID:{m.id:x} PeerURLs:{_bracketed(m.peer_urls)} Name:{m.name}}}" for m in known.members)
    return f"{{ClusterID:{known.cluster_id:x} Members:[{listed}]}}"
