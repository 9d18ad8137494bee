"""Plays interaction transcripts: a few cores on one table, every message and every write moved by hand.

A script is a list of blocks: command lines, `----`, the expected output, an empty line. Lines that start with
`#` are comments. Commands (members are numbers):

add-nodes N [learners=4,5] [pre-vote=no] [append-bytes=N] [inflight=N] [uncommitted-bytes=N]
    join I                     a member that knows nobody yet
    elect I                    campaign, stabilize, show nothing
    alone I [N]                N ticks during which nobody hears I and it hears nobody
    campaign I | tick I [N] | propose I TEXT | read I CTX | transfer I TO
    conf-change I +4 ~5 -1 [explicit]      add voter, add learner, remove; or leave-joint I
    ready I [N]                take Readys (N at most); their writes stay unfinished, their messages on the table
    persist I [NUMBER]         the disk finishes writes up to NUMBER, or all
    deliver I [FROM] [TYPE]    hand over the messages for I; late I [TYPE]: the last one only, and keep it on the table
    drop I [FROM]              throw the messages for I away
    stabilize [I ...]          ready, persist, apply and deliver among these members until nothing moves
    crash I                    unfinished writes are lost, then it starts again from its disk
    compact I INDEX            drop the log up to INDEX from memory and disk
    snapshot I TO [fails]      deliver a snapshot of what I applied, and report it
    unreachable I J | log I | status I | progress I
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from quorate.consensus.raft import confchange
from quorate.consensus.raft.core import RaftCore
from quorate.consensus.raft.messages import (
    Append,
    AppendAck,
    AppendReject,
    Commit,
    ConfChange,
    ConfChangeKind,
    ConfState,
    Entry,
    EntryKind,
    Forward,
    ForwardRefused,
    HardState,
    Heartbeat,
    HeartbeatAck,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResp,
    RaftConfig,
    ReadReq,
    ReadResp,
    Ready,
    Refusal,
    SnapshotMeta,
    Vote,
    VoteResp,
)

ACTIONS = {"+": ConfChangeKind.ADD_VOTER, "~": ConfChangeKind.ADD_LEARNER, "-": ConfChangeKind.REMOVE}
OPTIONS = {
    "append-bytes": "append_bytes_max",
    "inflight": "inflight_appends_max",
    "uncommitted-bytes": "uncommitted_bytes_max",
}


class FixedDice:
    """Draws that depend on the member and its life only: member 1 times out first."""

    def __init__(self, member_id: int, life: int):
        self.member_id = member_id
        self.life = life

    def randrange(self, stop: int, /) -> int:
        return min(stop - 1, self.member_id - 1 if stop < 1000 else 1000 * self.member_id + 100 * self.life)


class Node:
    """One core with its disk."""

    def __init__(self, config: RaftConfig, conf: ConfState):
        self.config = config
        self.hard_state = HardState()
        self.base = SnapshotMeta(0, 0, conf)
        self.log: list[Entry] = []
        self.writes: deque[Ready] = deque()
        self.life = 0
        self.start()

    def start(self) -> None:
        self.core = RaftCore(
            self.config,
            FixedDice(self.config.id, self.life),
            hard_state=self.hard_state,
            conf_state=self.base.conf_state,
            base_index=self.base.index,
            base_term=self.base.term,
            entries=self.log,
            applied_index=self.base.index,
        )
        self.life += 1

    def finish_write(self) -> int:
        ready = self.writes.popleft()
        if ready.snapshot is not None:
            self.base, self.log = ready.snapshot, []
        if ready.entries:
            self.log[ready.entries[0].index - self.base.index - 1 :] = ready.entries
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        return ready.number


class Table:
    """The members and the messages between them."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.messages: list[Message] = []
        self.out: list[str] = []
        self.base_config = RaftConfig(id=1)

    def play(self, line: str) -> None:
        """Executes one command; what it shows goes to `out`."""
        name, *words = line.split()
        command: Callable[..., None] = getattr(self, "do_" + name.replace("-", "_"))
        command(*words)

    # Building

    def do_add_nodes(self, count: str, *options: str) -> None:
        named = dict(option.split("=") for option in options)
        learners = tuple(int(word) for word in named.pop("learners", "").split(",") if word)
        voters = tuple(member for member in range(1, int(count) + 1) if member not in learners)
        values: dict[str, int] = {OPTIONS[key]: int(v) for key, v in named.items() if key != "pre-vote"}
        pre_vote = named.get("pre-vote") != "no"
        for member in range(1, int(count) + 1):
            config = RaftConfig(id=member, pre_vote=pre_vote, **values)
            self.nodes[member] = Node(config, ConfState(voters, (), learners))

    def do_join(self, member: str) -> None:
        self.nodes[int(member)] = Node(RaftConfig(id=int(member)), ConfState())

    # Inputs

    def do_campaign(self, member: str) -> None:
        self.core(member).campaign()

    def do_tick(self, member: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.core(member).tick()

    def do_elect(self, member: str) -> None:
        self.do_campaign(member)
        self.do_stabilize()
        self.out.clear()

    def do_alone(self, member: str, count: str = "1") -> None:
        """What it hears and says is lost; the change of its role is shown."""
        node = self.nodes[int(member)]
        for _ in range(int(count)):
            node.core.tick()
            while (ready := node.core.ready()) is not None:
                ready.messages.clear()
                self.take(node, ready)

    def do_propose(self, member: str, text: str) -> None:
        self.show_refusal(self.core(member).propose(text.encode(), ref=len(text)))

    def do_read(self, member: str, ctx: str) -> None:
        self.show_refusal(self.core(member).read_index(int(ctx)))

    def do_transfer(self, member: str, to: str) -> None:
        self.show_refusal(self.core(member).transfer_leader(int(to)))

    def do_conf_change(self, member: str, *words: str) -> None:
        changes = [ConfChange(ACTIONS[word[0]], int(word[1:])) for word in words]
        self.show_refusal(self.core(member).propose_conf_change(changes))

    def do_compact(self, member: str, index: str) -> None:
        node = self.nodes[int(member)]
        term, conf = node.core.term_at(int(index)), node.core.conf_state_at(int(index))
        node.core.compact(int(index))
        del node.log[: int(index) - node.base.index]
        node.base = SnapshotMeta(int(index), term or 0, conf)

    def do_snapshot(self, member: str, to: str, outcome: str = "arrives") -> None:
        core = self.core(member)
        index = core.applied_index
        if outcome == "arrives":
            meta = SnapshotMeta(index, core.term_at(index) or 0, core.conf_state_at(index))
            self.core(to).step(InstallSnapshot(core.id, int(to), core.term, meta))
        core.report_snapshot(int(to), outcome == "arrives", index)

    # Moving things

    def do_ready(self, member: str, count: str = "100") -> None:
        node = self.nodes[int(member)]
        for _ in range(int(count)):
            ready = node.core.ready()
            if ready is None:
                break
            self.take(node, ready)

    def take(self, node: Node, ready: Ready) -> None:
        self.show_ready(node, ready)
        self.messages += ready.messages
        if ready.must_sync:
            node.writes.append(ready)
        if ready.snapshot is not None:
            node.core.on_applied(ready.snapshot.index)
        if ready.committed:
            node.core.on_applied(ready.committed[-1].index)

    def do_persist(self, member: str, number: str = "") -> None:
        node = self.nodes[int(member)]
        while node.writes and (not number or node.writes[0].number <= int(number)):
            node.core.on_persisted(node.finish_write())

    def do_deliver(self, member: str, *filters: str) -> None:
        for message in self.pick(member, filters):
            self.messages.remove(message)
            self.core(member).step(message)

    def do_late(self, member: str, *filters: str) -> None:
        message = self.pick(member, filters)[-1]
        self.out.append(f"again {show_message(message)}")
        self.core(member).step(message)

    def do_drop(self, member: str, *filters: str) -> None:
        for message in self.pick(member, filters):
            self.out.append(f"dropped {show_message(message)}")
            self.messages.remove(message)

    def pick(self, member: str, filters: Iterable[str]) -> list[Message]:
        chosen = [message for message in self.messages if message.to_id == int(member)]
        for word in filters:
            if word.isdigit():
                chosen = [message for message in chosen if message.from_id == int(word)]
            else:
                chosen = [message for message in chosen if type(message).__name__ == word]
        return chosen

    def do_stabilize(self, *members: str) -> None:
        group = [int(member) for member in members] or sorted(self.nodes)
        moved = True
        while moved:
            moved = False
            for member in group:
                node = self.nodes[member]
                while node.writes or (ready := node.core.ready()) is not None:
                    moved = True
                    if node.writes:
                        self.do_persist(str(member))
                    else:
                        assert ready is not None
                        self.take(node, ready)
            for message in [m for m in self.messages if m.to_id in group and m.from_id in group]:
                moved = True
                self.messages.remove(message)
                self.nodes[message.to_id].core.step(message)

    def do_crash(self, member: str) -> None:
        node = self.nodes[int(member)]
        node.writes.clear()
        node.start()

    # Showing

    def core(self, member: str) -> RaftCore:
        return self.nodes[int(member)].core

    def show_refusal(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self.out.append(f"refused: {refusal.value}")

    def do_log(self, member: str) -> None:
        self.out += [show_entry(entry) for entry in self.nodes[int(member)].log] or ["empty"]

    def do_status(self, member: str) -> None:
        core = self.core(member)
        self.out.append(
            f"{core.role.value} term={core.term} leader={core.leader_id} last={core.last_index} "
            f"stable={core.stable_index} commit={core.commit_index} conf={show_conf(core.conf_state)}"
        )

    def do_progress(self, member: str) -> None:
        for peer, progress in sorted(self.core(member).progress().items()):
            paused = " paused" if progress.is_paused else ""
            inflight = f" inflight={len(progress.inflights)}" if progress.inflights else ""
            self.out.append(
                f"{peer} {progress.state.value} match={progress.match_index} "
                f"next={progress.next_index}{paused}{inflight}"
            )

    def show_ready(self, node: Node, ready: Ready) -> None:
        me, out = node.config.id, self.out
        if ready.soft_state is not None:
            term = node.core.term
            out.append(f"{me} is {ready.soft_state.role.value} leader={ready.soft_state.leader_id} term={term}")
        if ready.conf_state is not None and node.core.last_index > 0:
            out.append(f"{me} uses {show_conf(ready.conf_state)}")
        if ready.must_sync:
            hard = ready.hard_state or HardState()
            parts = [f"{me} writes #{ready.number} term={hard.term} vote={hard.vote}"]
            if ready.snapshot is not None:
                parts.append(f"snapshot {ready.snapshot.index}/{ready.snapshot.term}")
            parts += [show_entry(entry) for entry in ready.entries]
            out.append(", ".join(parts))
        out += [show_message(message) for message in ready.messages]
        out += [f"{me} wants a snapshot sent to {peer}" for peer in ready.snapshot_peers]
        if ready.committed:
            out.append(f"{me} applies {', '.join(show_entry(entry) for entry in ready.committed)}")
        out += [f"{me} reads {read.ctx} at {read.read_index}" for read in ready.read_states]
        out += [f"{me} refuses read {ctx}: {why.value}" for ctx, why in ready.refused_reads]
        out += [f"{me} refuses proposal {ref}: {why.value}" for ref, why in ready.refused_proposals]


def show_conf(conf: ConfState) -> str:
    text = f"({' '.join(map(str, conf.voters))})"
    if conf.outgoing:
        text += f"&&({' '.join(map(str, conf.outgoing))})"
    if conf.learners:
        text += f" learners=({' '.join(map(str, conf.learners))})"
    return text


def show_entry(entry: Entry) -> str:
    """index/term and what it holds."""
    match entry.kind:
        case EntryKind.NOOP:
            content = "noop"
        case EntryKind.CONF:
            content = show_conf(confchange.decode(entry.payload)[0])
        case _:
            content = entry.payload.decode()
    return f"{entry.index}/{entry.term} {content}"


def show_message(message: Message) -> str:
    """One line, without what every message has."""
    head = f"{message.from_id}->{message.to_id} {type(message).__name__} term={message.term}"
    match message:
        case Append():
            entries = ", ".join(show_entry(entry) for entry in message.entries)
            text = f"prev={message.prev_index}/{message.prev_term} commit={message.commit} [{entries}]"
        case AppendAck():
            text = f"match={message.match_index}"
        case AppendReject():
            text = f"prev={message.prev_index} hint={message.hint_index}/{message.hint_term}"
        case Heartbeat():
            text = f"commit={message.commit} read={message.read_seq}"
        case HeartbeatAck():
            text = f"read={message.read_seq}"
        case Commit():
            text = f"commit={message.commit}"
        case PreVote() | Vote():
            text = f"log={message.last_index}/{message.last_term}"
            text += " transfer" if isinstance(message, Vote) and message.transfer else ""
        case PreVoteResp() | VoteResp():
            text = "granted" if message.granted else "refused"
        case ReadReq():
            text = f"ctx={message.ctx}"
        case ReadResp():
            text = f"ctx={message.ctx} index={message.read_index}"
        case Forward():
            text = message.payload.decode()
        case ForwardRefused():
            text = message.refusal.value
        case InstallSnapshot():
            text = f"snapshot={message.snapshot.index}/{message.snapshot.term}"
        case _:
            text = ""
    return f"{head} {text}".rstrip()


def replay(script: Path) -> str:
    """The script with the output that the core gives now."""
    table = Table()
    lines: list[str] = []
    commands: list[str] = []
    in_output = False
    for line in [*script.read_text().splitlines(), ""]:
        if in_output:
            in_output = bool(line)
        elif line == "----":
            table.out = []
            for command in commands:
                table.play(command)
            lines += ["----", *(table.out or ["ok"]), ""]
            commands, in_output = [], True
        elif not line or line.startswith("#"):
            lines.append(line)
        else:
            commands.append(line)
            lines.append(line)
    assert not commands, "the last commands have no ---- line"
    return "\n".join(lines).rstrip() + "\n"
