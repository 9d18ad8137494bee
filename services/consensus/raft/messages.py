"""The words of the Raft core: entries, states, messages between members, duties of the host.

Everything here is an immutable value. Messages are named tuples: one allocation, compared by value, safe to
deliver twice. The byte format between nodes is not known here; `peers` owns it. All ids are member ids (64
bit, never reused); 0 stands for "nobody". All indexes are Raft log indexes; the first entry has index 1, and
0 is the empty log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

NOBODY = 0
TERM_MAX = INDEX_MAX = 1 << 62  # never reached by counting; storage keeps both in signed numbers of 64 bits


class EntryKind(IntEnum):
    """What an entry's payload means. The numbers are part of the log's format on disk and between nodes."""

    BATCH = 1  # client commands, opaque to consensus; the unit of replication
    NOOP = 2  # empty; the first entry of every term (paper section 8)
    CONF = 3  # a configuration, see confchange.encode
    ATTR = 4  # a cluster attribute the host interprets; the core treats it like BATCH


class Entry(NamedTuple):
    """One item of the log."""

    index: int  # type: ignore[assignment]  # the log's word; tuple.index is not missed
    term: int
    kind: int  # an EntryKind, plain int when it came from a decoder
    payload: bytes


class HardState(NamedTuple):
    """What must survive a restart. `commit` is a hint: it may be behind what was durable."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0


class Role(Enum):
    """What a member currently is (paper figure 4, thesis 9.6 for the pre-candidate)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class SoftState(NamedTuple):
    """Who leads and what this member is; volatile, for the host's information."""

    role: Role
    leader_id: int


class ConfState(NamedTuple):
    """The members and their rights at one point of the log.

    Outside a joint configuration `outgoing` is empty. Within one, decisions need a majority of `voters` and a
    majority of `outgoing` (paper section 6). A voter being demoted stands in `outgoing` and in `learners`; it
    votes until the joint configuration is left, which the leader does once it is committed. All tuples are sorted.
    """

    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()

    @property
    def is_joint(self) -> bool:
        """True between entering and leaving a joint configuration."""
        return bool(self.outgoing)

    def is_voter(self, member_id: int) -> bool:
        """True if the member's vote counts in either half."""
        return member_id in self.voters or member_id in self.outgoing

    def members(self) -> set[int]:
        """Everybody who receives the log."""
        return {*self.voters, *self.outgoing, *self.learners}


class ConfChangeKind(IntEnum):
    """What happens to one member."""

    ADD_VOTER = 1  # also promotes a learner
    ADD_LEARNER = 2  # also demotes a voter
    REMOVE = 3


class ConfChange(NamedTuple):
    """One step of a membership change."""

    kind: ConfChangeKind
    member_id: int


class SnapshotMeta(NamedTuple):
    """Names the state that replaces the log up to and including `index`."""

    index: int  # type: ignore[assignment]  # as in Entry
    term: int
    conf_state: ConfState


class Refusal(Enum):
    """Why the core did not take a proposal, a read or a request. Nothing of it will happen later."""

    NO_LEADER = "no leader"
    NOT_LEADER = "not leader"  # asked for something only the leader can start
    LEADER_CHANGED = "leader changed"  # a pending read whose leader is gone; it may be asked again
    OVERLOADED = "overloaded"  # too many bytes uncommitted, too many entries unapplied or too many reads waiting
    TRANSFERRING = "leadership transfer in progress"
    NOT_READY = "no entry of this term committed yet"  # configuration changes only
    CONF_CHANGE_PENDING = "configuration change in progress"
    INVALID_CONF_CHANGE = "invalid configuration change"
    UNKNOWN_MEMBER = "not a voting member"


class ImpossibleMessage(Exception):  # noqa: N818 - it names the finding
    """A message that no member sends that keeps to the rules; taking it would break what holds here.

    It is dropped as if it had been lost. The text says what is wrong with it.
    """


class Append(NamedTuple):
    """Leader to follower: entries after (prev_index, prev_term), or none to check that position only."""

    from_id: int
    to_id: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] | list[Entry]  # never changed after the message was made


class AppendAck(NamedTuple):
    """Follower to leader: the log up to `match_index` is durable here and equal to the leader's."""

    from_id: int
    to_id: int
    term: int
    match_index: int


class AppendReject(NamedTuple):
    """Follower to leader: (prev_index, prev_term) is not in the log; equal at most up to `hint_index`.

    `hint_term` is the follower's term at `hint_index`, so that a leader skips a whole term at a time (paper
    section 5.3, last paragraphs).
    """

    from_id: int
    to_id: int
    term: int
    prev_index: int
    hint_index: int
    hint_term: int


class Heartbeat(NamedTuple):
    """Leader to everybody: I live. `commit` never exceeds what the receiver has acknowledged."""

    from_id: int
    to_id: int
    term: int
    commit: int
    read_seq: int  # the highest read round of this term that waits for confirmation


class HeartbeatAck(NamedTuple):
    """Follower to leader: in this term I knew no other leader when `read_seq` reached me."""

    from_id: int
    to_id: int
    term: int
    read_seq: int


class Commit(NamedTuple):
    """Leader to follower: you and a quorum have everything up to `commit`. Not answered; may be lost."""

    from_id: int
    to_id: int
    term: int
    commit: int


class PreVote(NamedTuple):
    """Would you vote for me in `term`, the sender's next? Nobody adopts it (thesis 9.6)."""

    from_id: int
    to_id: int
    term: int
    last_index: int
    last_term: int


class PreVoteResp(NamedTuple):
    """`term` is the asked one if granted, else the refuser's own."""

    from_id: int
    to_id: int
    term: int
    granted: bool


class Vote(NamedTuple):
    """Vote for me.

    `transfer`: the leader itself asked for this election, so leases do not count (thesis 3.10).
    """

    from_id: int
    to_id: int
    term: int
    last_index: int
    last_term: int
    transfer: bool


class VoteResp(NamedTuple):
    """Sent only when the vote is durable."""

    from_id: int
    to_id: int
    term: int
    granted: bool


class TimeoutNow(NamedTuple):
    """Leader to the chosen successor, whose log is complete: campaign at once."""

    from_id: int
    to_id: int
    term: int


class ReadReq(NamedTuple):
    """Follower to leader: which index must I have applied to serve reads?

    `ctx` is never used twice, also not after a restart. With `term` the follower says that it knew no newer leader
    when it asked; 0, as older members say, promises nothing.
    """

    from_id: int
    to_id: int
    term: int
    ctx: int


class ReadResp(NamedTuple):
    """Leader to follower: the confirmed read index for `ctx`."""

    from_id: int
    to_id: int
    term: int
    ctx: int
    read_index: int


class Forward(NamedTuple):
    """A proposal on its way to the leader. `ref` comes back only in a refusal; `term` is 0.

    A host may take these messages itself and put the payload into its own next batch instead of stepping
    them.
    """

    from_id: int
    to_id: int
    term: int
    ref: int
    kind: int
    payload: bytes


class ForwardRefused(NamedTuple):
    """The receiver of a Forward did not take it and never will. `term` is 0."""

    from_id: int
    to_id: int
    term: int
    ref: int
    refusal: Refusal


class InstallSnapshot(NamedTuple):
    """Leader to a follower whose next entry is no longer in the leader's log.

    The host sends the state itself on its own stream. The receiving host steps this message only when the
    whole state has arrived, is verified and durable.
    """

    from_id: int
    to_id: int
    term: int
    snapshot: SnapshotMeta


Message = (
    Append
    | AppendAck
    | AppendReject
    | Heartbeat
    | HeartbeatAck
    | Commit
    | PreVote
    | PreVoteResp
    | Vote
    | VoteResp
    | TimeoutNow
    | ReadReq
    | ReadResp
    | Forward
    | ForwardRefused
    | InstallSnapshot
)


class ReadState(NamedTuple):
    """The read asked for with `ctx` is linearizable once everything up to `read_index` is applied."""

    ctx: int
    read_index: int


@dataclass(slots=True)
class Ready:
    """One batch of duties for the host. Taking it is promising to fulfil it; it cannot be had again.

    Order of duties: `messages` may be sent at once, also before or during the write. If `must_sync`,
    `snapshot`, `hard_state` and `entries` are made durable together, after everything of earlier Readys, and
    then `on_persisted(number)` is called; only then does the core release the votes and acknowledgements that
    depend on them (in a later Ready), and only then does a leader count itself. `committed` is handed to
    storage in order, after `snapshot`, and reported by `on_applied`.
    """

    number: int = 0  # for on_persisted; 0 if nothing here has to be durable
    must_sync: bool = False
    hard_state: HardState | None = None  # if only `commit` changed, must_sync is False and writing it is optional
    snapshot: SnapshotMeta | None = None  # replaces the whole log: forget every entry, continue after its index
    entries: list[Entry] = field(default_factory=list)  # replace everything from entries[0].index on
    messages: list[Message] = field(default_factory=list)  # send now
    committed: list[Entry] = field(default_factory=list)  # durable here and committed, for storage
    read_states: list[ReadState] = field(default_factory=list)
    refused_reads: list[tuple[int, Refusal]] = field(default_factory=list)  # (ctx, why)
    refused_proposals: list[tuple[int, Refusal]] = field(default_factory=list)  # (ref, why): forwarded ones
    snapshot_peers: list[int] = field(default_factory=list)  # stream a snapshot to each, then report_snapshot
    soft_state: SoftState | None = None  # if role or leader changed
    conf_state: ConfState | None = None  # if the configuration in force changed: whom to connect to


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """The numbers of one member. Times are in ticks; the host decides how long one is."""

    id: int
    election_ticks: int = 10  # least election timeout; the drawn one is in [election_ticks, 2 * election_ticks)
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    append_bytes_max: int = 1 << 20  # payload bytes of one Append; a single larger entry travels alone
    inflight_appends_max: int = 8  # per follower; deeper pipelines raised commit latency (hashicorp/raft #541)
    inflight_bytes_max: int = 4 << 20  # per follower
    uncommitted_bytes_max: int = 64 << 20  # the leader refuses proposals beyond it
    uncommitted_entries_max: int = 100_000  # the same for entries that are small or empty
    apply_bytes_max: int = 8 << 20  # handed to storage and not yet reported by on_applied
    apply_lag_entries_max: int = 5_000  # the leader refuses proposals when its own storage is so far behind
    read_rounds_max: int = 2  # read rounds in flight at once; reads that arrive meanwhile share the next
    reads_waiting_max: int = 100_000

    def __post_init__(self) -> None:
        assert self.id > NOBODY
        assert self.election_ticks > self.heartbeat_ticks > 0
        assert self.inflight_appends_max > 0
        assert self.read_rounds_max > 0
