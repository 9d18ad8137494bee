"""A member whose database is gone while its log is whole: it votes and acknowledges on, and gets the data back.

The log is not touched. If it reaches back to its beginning, storage gets everything from there. Else it asks for an
image: whoever leads sends images; a leader that needs one itself hands over first. An image has to reach the log's
beginning: an older one, which the leader may still have from another member, is of no use.
"""

from __future__ import annotations

from typing import Final

from quorate.consensus.calls import INDEX_BYTES
from quorate.consensus.driver import Driver
from quorate.consensus.frames import Call
from quorate.consensus.raft.messages import NOBODY
from quorate.consensus.raft.messages import Role as RaftRole
from quorate.node import logs
from quorate.node.lifecycle import OperatorError
from quorate.wire.messages import ClusterOp

log = logs.named("healing")

ASK_S: Final = 3.0  # again, as a question may be lost with its leader
AILMENT: Final = "quorate: this member lost its database and is getting it back"


class Rebuilding:
    """Asks until the driver has an image to give to storage, and counts."""

    def __init__(self, driver: Driver) -> None:
        self.rebuilt = 0  # since this process began
        self._driver = driver
        self._next_ask = 0.0
        self._asked = (NOBODY, 0)  # which leader, and of what term
        self._is_told = False
        self._goal: int | None = None  # the index committed when the loss was seen: the database is rebuilt up to there

    @property
    def is_waiting(self) -> bool:
        """Storage has not got back what was lost."""
        return self._goal is not None or self._driver.stream.is_anew or self._driver.stream.lacks_image

    def look(self, now: float) -> None:
        """Once a tick."""
        stream = self._driver.stream
        if self._goal is None and self.is_waiting:
            self._goal = self._driver.core.commit_index or None  # nothing is known yet
        if stream.lacks_image:
            self._look_for_image(now)
            return
        self._is_told = False
        if self._goal is not None and stream.has(self._goal):
            self._goal, stream.is_anew = None, False
            self.rebuilt += 1
            log.warn("the database is whole again", applied_index=stream.applied_index)

    def _look_for_image(self, now: float) -> None:
        driver = self._driver
        others = [number for number in driver.membership.members if number != driver.member_id]
        if not others:
            raise OperatorError(
                f"the database was lost and the log does not reach back to its beginning (it starts at index "
                f"{driver.core.first_index}): restore a backup with `quorateutl snapshot restore`; what was damaged is "
                "in the directory quarantine beside the database"
            )
        if not self._is_told:
            self._is_told = True
            log.error("the database is lost; asking the others for an image", others=[f"{one:x}" for one in others])
        leader = (driver.core.leader_id, driver.core.term)
        if leader[0] != NOBODY and (now >= self._next_ask or leader != self._asked):
            self._next_ask, self._asked = now + ASK_S, leader
            self._ask()

    def _ask(self) -> None:
        driver = self._driver
        core = driver.core
        if core.role is RaftRole.LEADER:
            voters = [one for one in core.conf_state.voters if driver.network.active_since(one) is not None]
            if voters:
                core.transfer_leader(voters[0])
        else:
            since = (core.first_index - 1).to_bytes(INDEX_BYTES, "little")
            call = Call(driver.member_id, core.leader_id, core.term, 0, ClusterOp.IMAGE, since)
            driver.network.send(call)
        driver.schedule()
