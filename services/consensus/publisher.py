"""What a member says of itself through the log: its name and client urls, and as leader the cluster version.

Clients are served only when the member has been published: until then nobody could be told where to find it.
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.driver import Driver
from quorate.consensus.membership import CLUSTER_VERSION, pack_attributes, pack_cluster_version
from quorate.consensus.raft.messages import NOBODY, EntryKind
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.node import logs

log = logs.named("publisher")

RETRY_S: Final = 1.0  # a proposal may be lost on its way to the leader
RETRY_S_MAX: Final = 8.0  # of a member that takes long to get what it said itself; etcd repeats it every 7 s


class Publisher:
    """Proposes until the log says it."""

    def __init__(self, driver: Driver, name: str, client_urls: list[str]) -> None:
        self._driver = driver
        self._name = name
        self._client_urls = tuple(client_urls)
        self._announced = False
        self._next_try = 0.0
        self._retry_s = RETRY_S
        self._leader_id = NOBODY
        driver.is_published = self._is_in_log()

    def look(self, now: float) -> None:
        """Proposes what is missing, once per leader and then less and less often."""
        driver = self._driver
        core = driver.core
        membership = driver.membership
        own = membership.members.get(driver.member_id)
        if core.leader_id == NOBODY or own is None:
            return
        is_published = self._is_in_log()
        if is_published and not self._announced:
            self._announced = driver.is_published = True
            log.info(
                "published local member to cluster through raft",
                local_member_id=f"{own.id:x}",
                cluster_id=f"{membership.cluster_id:x}",
            )
        if now < self._next_try and core.leader_id == self._leader_id:
            return
        self._retry_s = RETRY_S if core.leader_id != self._leader_id else min(2 * self._retry_s, RETRY_S_MAX)
        self._leader_id = core.leader_id
        self._next_try = now + self._retry_s
        if not is_published:
            core.propose(pack_attributes(own.id, self._name, self._client_urls), kind=EntryKind.ATTR)
            driver.schedule()
        if core.role is RaftRole.LEADER and membership.cluster_version != CLUSTER_VERSION:
            core.propose(pack_cluster_version(CLUSTER_VERSION), kind=EntryKind.ATTR)
            driver.schedule()

    def _is_in_log(self) -> bool:
        own = self._driver.membership.members.get(self._driver.member_id)
        return own is not None and (own.name, own.client_urls) == (self._name, self._client_urls)
