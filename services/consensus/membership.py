"""Who belongs to the cluster: ids, names, urls, learners, removed ids, and how log entries change them. Pure.

A CONF entry of the log names the whole resulting set of members; its context describes the member that is new in it.
An ATTRIBUTES entry changes what a member says of itself, or the cluster version. Both take effect when committed,
on every member at the same index, so that a membership is always "as of index i".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha1
from typing import Any, Final

import google_crc32c

from quorate.consensus.raft.confchange import decode
from quorate.consensus.raft.messages import ConfState

CLUSTER_VERSION: Final = "3.6.0"
_FORMAT: Final = 1


def member_id(peer_urls: Iterable[str], token: str, unix_seconds: int | None = None) -> int:
    """etcd's id of a member: `unix_seconds` is given for members added to a running cluster (with an empty token)."""
    text = "".join(sorted(peer_urls)) + token
    if unix_seconds is not None:
        text += str(unix_seconds)
    return int.from_bytes(sha1(text.encode(), usedforsecurity=False).digest()[:8], "big")


def cluster_id(member_ids: Iterable[int]) -> int:
    """etcd's id of a cluster founded by these members."""
    packed = b"".join(number.to_bytes(8, "big") for number in sorted(member_ids))
    return int.from_bytes(sha1(packed, usedforsecurity=False).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Member:
    """One member. One that was added and never started has no name and no client urls."""

    id: int
    peer_urls: tuple[str, ...]
    name: str = ""
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False
    is_joining: bool = False  # a voter for everybody who asks, without a vote until it has the log (see `calls`)

    @property
    def is_started(self) -> bool:
        return bool(self.name)

    def as_json(self) -> dict[str, Any]:
        """As etcd writes a member on its peer port."""
        fields: dict[str, Any] = {"id": self.id, "peerURLs": list(self.peer_urls)}
        if self.is_learner:
            fields["isLearner"] = True
        if self.is_joining:
            fields["isJoining"] = True
        if self.name:
            fields["name"] = self.name
        if self.client_urls:
            fields["clientURLs"] = list(self.client_urls)
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Member:
        """The opposite of `as_json`; ValueError for anything else."""
        try:
            (number,) = _numbers([fields["id"]])
            return cls(
                number,
                tuple(map(str, fields["peerURLs"])),
                str(fields.get("name", "")),
                tuple(map(str, fields.get("clientURLs") or ())),
                bool(fields.get("isLearner", False)),
                bool(fields.get("isJoining", False)),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a member: {fields!r}") from error


@dataclass(frozen=True, slots=True)
class Membership:
    """The cluster as of the log index `index`."""

    cluster_id: int
    index: int
    conf: ConfState
    members: dict[int, Member] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()  # their ids are never used again
    cluster_version: str = ""

    @classmethod
    def founded(cls, members: Sequence[Member]) -> Membership:
        """The cluster that these members found together, all of them voters."""
        ids = sorted(member.id for member in members)
        return cls(cluster_id(ids), 0, ConfState(voters=tuple(ids)), {member.id: member for member in members})

    def ordered(self) -> list[Member]:
        """By ascending id, as every list of etcd is."""
        return [self.members[number] for number in sorted(self.members)]

    def with_conf(self, index: int, payload: bytes) -> Membership:
        """After the CONF entry at `index`; ValueError if the payload is none."""
        conf, context = decode(payload)
        members = dict(self.members)
        if context:
            newcomer = Member.from_json(json_object(context))
            members.setdefault(newcomer.id, newcomer)
        present = conf.members()
        removed = self.removed | (self.conf.members() - present)
        kept = {number: _placed(member, conf) for number, member in members.items() if number not in removed}
        return replace(self, index=index, conf=conf, members=kept, removed=removed)

    def with_attributes(self, index: int, payload: bytes) -> Membership:
        """After the ATTRIBUTES entry at `index`; ValueError if the payload is none. What concerns a member that is gone
        has no effect."""
        fields = json_object(payload)
        if "clusterVersion" in fields:
            return replace(self, index=index, cluster_version=str(fields["clusterVersion"]))
        try:
            (number,) = _numbers([fields["id"]])
            member = self.members.get(number)
            if member is None:
                return replace(self, index=index)
            changed = replace(
                member,
                name=str(fields.get("name", member.name)),
                client_urls=tuple(map(str, fields.get("clientURLs", member.client_urls))),
                peer_urls=tuple(map(str, fields.get("peerURLs", member.peer_urls))),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("not the attributes of a member") from error
        return replace(self, index=index, members={**self.members, member.id: changed})


def _placed(member: Member, conf: ConfState) -> Member:
    """The member with the part it has in `conf`."""
    has_no_vote = member.id in conf.learners and member.id not in conf.outgoing
    return replace(
        member, is_learner=has_no_vote and not member.is_joining, is_joining=has_no_vote and member.is_joining
    )


def pack_newcomer(member: Member) -> bytes:
    """The context of the CONF entry that brings `member`."""
    return json.dumps(member.as_json()).encode()


def pack_attributes(number: int, name: str, client_urls: Sequence[str]) -> bytes:
    """The ATTRIBUTES entry by which a member publishes itself."""
    return json.dumps({"id": number, "name": name, "clientURLs": list(client_urls)}).encode()


def pack_peer_urls(number: int, peer_urls: Sequence[str]) -> bytes:
    """The ATTRIBUTES entry by which a member moves to other addresses."""
    return json.dumps({"id": number, "peerURLs": list(peer_urls)}).encode()


def pack_cluster_version(version: str) -> bytes:
    """The ATTRIBUTES entry that decides the cluster version."""
    return json.dumps({"clusterVersion": version}).encode()


@dataclass(frozen=True, slots=True)
class Meta:
    """What a member knows beside its log: itself, the membership the log begins with, a snapshot being installed."""

    member_id: int
    membership: Membership
    snapshot_index: int = 0  # of the newest snapshot this member was given; the log before it is void
    snapshot_term: int = 0


def pack_meta(counter: int, meta: Meta) -> bytes:
    """A checksummed text; of two copies the one with the higher counter is the newer."""
    membership = meta.membership
    fields = {
        "format": _FORMAT,
        "counter": counter,
        "member": meta.member_id,
        "snapshot": [meta.snapshot_index, meta.snapshot_term],
        **membership_json(membership),
    }
    body = json.dumps(fields, indent=1).encode()
    return b"%08x\n" % google_crc32c.value(body) + body


def unpack_meta(data: bytes) -> tuple[int, Meta]:
    """(counter, meta); ValueError for anything `pack_meta` did not make."""
    crc, _, body = data.partition(b"\n")
    if crc != b"%08x" % google_crc32c.value(body):
        raise ValueError("checksum does not fit")
    fields = json_object(body)
    try:
        if fields["format"] != _FORMAT:
            raise ValueError(f"unknown format {fields['format']}")
        counter, number, *snapshot = _numbers((fields["counter"], fields["member"], *fields["snapshot"]))
        snapshot_index, snapshot_term = snapshot
    except (KeyError, TypeError) as error:
        raise ValueError("not what a member knows") from error
    return counter, Meta(number, membership_from_json(fields), snapshot_index, snapshot_term)


def json_object(text: bytes) -> dict[str, Any]:
    """The object that the text is; ValueError for anything else, and for texts in it that nobody could be told."""
    try:
        fields = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return fields


def _numbers(values: Iterable[Any]) -> tuple[int, ...]:
    """ValueError unless each is an unsigned number of 64 bits."""
    numbers = tuple(values)
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
        raise ValueError(f"not ids or indexes: {numbers!r}")
    return numbers


def membership_json(membership: Membership) -> dict[str, Any]:
    """All of a membership, for files and for snapshots between members."""
    conf = membership.conf
    return {
        "cluster": membership.cluster_id,
        "index": membership.index,
        "voters": conf.voters,
        "outgoing": conf.outgoing,
        "learners": conf.learners,
        "autoLeave": True,  # 0.1.0 reads no membership without it
        "members": [member.as_json() for member in membership.ordered()],
        "removed": sorted(membership.removed),
        "clusterVersion": membership.cluster_version,
    }


def membership_from_json(fields: dict[str, Any]) -> Membership:
    """The opposite of `membership_json`; ValueError for anything else."""
    try:
        voters, outgoing, learners = (_numbers(fields[name]) for name in ("voters", "outgoing", "learners"))
        members = [Member.from_json(one) for one in fields["members"]]
        cluster, index = _numbers((fields["cluster"], fields["index"]))
        return Membership(
            cluster,
            index,
            ConfState(voters, outgoing, learners),
            {member.id: member for member in members},
            frozenset(_numbers(fields["removed"])),
            str(fields["clusterVersion"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not a membership") from error
