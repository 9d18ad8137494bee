"""The little language of the scripted sessions, and how a session becomes a transcript.

    nodes 3                  how many members (default 1)
    since 3.5                the first etcdctl that has the flags used here
    sorted yes               sort the lines of each output: members come by id, and ids are chance
    flags --x y              further flags of every member
    # text                   a heading that goes into the transcript
    $ put foo bar            run etcdctl to its end
    < text                   a line of its standard input (after `$` or `&`)
    @ NAME regex             keep the first group found in the output of the last command as $NAME
    & NAME watch foo         run etcdctl beside the session
    > NAME text              a line into its standard input
    ? NAME text              wait until its standard output has this text, with \\n for the end of a line
    ! NAME                   interrupt it and show its output
    . NAME                   wait until it ends by itself and show its output
    ~ NAME put foo bar       repeat a command until NAME has printed more than once what it causes, then go on as `!`
    = regex get foo          repeat a command until its output matches

A program writes line by line, so the text of a `?` before a `!` goes on to the end of what is shown. Between two
changes of members stands a `=` that puts a key: etcd answers the first a moment before it takes the second, and one
that comes in this moment is dropped, so that its caller waits in vain.

In arguments $EP is all endpoints, $EP1 the first member's, $LEADER and $FOLLOWER are endpoints, $ID1 a member id,
$DIR a directory of the session's own, and $$ a dollar.
"""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import messages, servers
from tests.conformance import normalise

COMMAND_S: Final = 30.0
PATIENT: Final = ("--command-timeout", "25s", "--dial-timeout", "10s")  # a busy machine is no difference
POLL_S: Final = 0.05
SESSIONS: Final = Path(__file__).parent / "sessions"


def _interruptible() -> None:
    """A shell's background job ignores SIGINT and its children inherit that; these are ended by it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(slots=True)
class Background:
    """A command that runs beside the session."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def printed(self) -> str:
        """Its standard output so far."""
        return self.out.read_text()


@dataclass(slots=True)
class Session:
    """One run of a session against one cluster with one etcdctl."""

    etcdctl: tuple[str, ...]
    cluster: servers.Cluster
    directory: Path
    variables: dict[str, str]
    names: normalise.Names
    sorted: bool = False
    transcript: list[str] = field(default_factory=list)
    backgrounds: dict[str, Background] = field(default_factory=dict)
    last_output: str = ""

    def play(self, lines: list[str]) -> str:
        """Run every step; the normalised transcript."""
        try:
            for step, stdin in _steps(lines):
                self._step(step, stdin)
        finally:
            for background in self.backgrounds.values():
                background.process.kill()
                background.process.wait()
        return "".join(self.transcript)

    def _step(self, step: str, stdin: str) -> None:
        kind, _, rest = step.partition(" ")
        name, _, tail = rest.partition(" ")
        match kind:
            case "#":
                self.transcript.append(f"\n{step}\n")
            case "$":
                self._show(step, stdin, *self._run(rest, stdin))
            case "@":
                found = re.search(tail, self.last_output)
                assert found is not None, f"{step!r}: nothing like that in {self.last_output!r}"
                self.variables[name] = found[1]
            case "&":
                self._start(name, tail, stdin)
                self.transcript.append(f"{step}\n{_quoted(stdin)}")
            case ">":
                pipe = self.backgrounds[name].process.stdin
                assert pipe is not None
                pipe.write(f"{tail}\n".encode())
                pipe.flush()
                self.transcript.append(f"{step}\n")
            case "?":
                text = self._expand(tail).replace(r"\n", "\n")
                self._wait(lambda: text in self.backgrounds[name].printed(), step)
                self.last_output = self.backgrounds[name].printed()
            case "!":
                self._finish(step, name)
            case ".":
                self._wait(lambda: self.backgrounds[name].process.poll() is not None, step)
                self._finish(step, name)
            case "~":
                self._wait(lambda: bool(self._run(tail, "") and _repeats(self.backgrounds[name].printed())), step)
                self._finish(step, name)
            case "=":
                self._wait(lambda: re.search(name, self._run(tail, "")[1]) is not None, step)
            case _:
                raise AssertionError(f"not a step: {step!r}")

    def _arguments(self, text: str) -> list[str]:
        arguments = shlex.split(self._expand(text))
        chosen = any(argument.startswith("--endpoints") for argument in arguments)
        endpoints = [] if chosen else ["--endpoints", self.variables["EP1"]]
        return [*self.etcdctl, *PATIENT, *endpoints, *arguments]

    def _expand(self, text: str) -> str:
        return re.sub(r"\$(\$|[A-Z]+\d*)", lambda found: self.variables[found[1]], text)

    def _run(self, text: str, stdin: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            self._arguments(text),
            input=stdin.encode(),
            capture_output=True,
            check=False,
            timeout=COMMAND_S,
            env=_environment(),
            cwd=self.directory,
        )
        self.last_output = ran.stdout.decode(errors="backslashreplace")
        return ran.returncode, self.last_output, ran.stderr.decode(errors="backslashreplace")

    def _start(self, name: str, text: str, stdin: str) -> None:
        out, err = self.directory / f"{name}.out", self.directory / f"{name}.err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                self._arguments(text),
                stdin=subprocess.PIPE,
                stdout=out_file,
                stderr=err_file,
                env=_environment(),
                cwd=self.directory,
                preexec_fn=_interruptible,
            )
        if stdin:
            assert process.stdin is not None
            process.stdin.write(stdin.encode())
            process.stdin.flush()
        self.backgrounds[name] = Background(process, out, err)

    def _finish(self, step: str, name: str) -> None:
        background = self.backgrounds.pop(name)
        if background.process.poll() is None:
            background.process.send_signal(signal.SIGINT)
        background.process.wait(COMMAND_S)
        printed = background.printed()
        if step.startswith("~"):
            printed = _once(printed)
        self.last_output = printed
        self._show(step, "", background.process.returncode, printed, background.err.read_text())

    def _wait(self, condition: object, step: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + COMMAND_S
        while not condition():
            shown = {name: one.printed() for name, one in self.backgrounds.items()}
            assert time.monotonic() < deadline, f"{step!r} did not come true: {shown} {self.last_output!r}"
            time.sleep(POLL_S)

    def _show(self, step: str, stdin: str, status: int, out: str, err: str) -> None:
        shown = normalise.output(out, self.names)
        if self.sorted:
            shown = "".join(sorted(shown.splitlines(keepends=True)))
        self.transcript.append(f"{step}\n{_quoted(stdin)}{shown}")
        for line in normalise.errors(err, self.names).splitlines():
            self.transcript.append(f"! {line}\n")
        if status:
            self.transcript.append(f"exit {status}\n")


def _once(printed: str) -> str:
    """One period of an output that repeats itself, because its cause was repeated."""
    lines = printed.splitlines(keepends=True)
    for period in range(1, len(lines) + 1):
        if all(line == lines[number % period] for number, line in enumerate(lines)):
            return "".join(lines[:period])
    return printed


def _repeats(printed: str) -> bool:
    """Whether the first period has come to its end: etcdctl prints line by line."""
    return _once(printed) != printed


def _quoted(stdin: str) -> str:
    return "".join(f"< {line}".rstrip() + "\n" for line in stdin.splitlines())


def _steps(lines: list[str]) -> Iterator[tuple[str, str]]:
    step, stdin = "", ""
    for line in lines:
        if line == "<" or line.startswith("< "):
            stdin += line[2:] + "\n"
        elif line.strip():
            if step:
                yield step, stdin
            step, stdin = line.rstrip(), ""
    if step:
        yield step, stdin


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
    return kept | {"ETCDCTL_API": "3"}


@dataclass(frozen=True, slots=True)
class Script:
    """A session as it is written."""

    nodes: int
    flags: list[str]
    since: str
    sorted: bool
    lines: list[str]


def read(name: str) -> Script:
    """The session of that name."""
    lines = (SESSIONS / f"{name}.session").read_text().splitlines()
    options = {"nodes": "1", "flags": "", "since": "3.4", "sorted": "no"}
    while lines and lines[0].split(" ")[0] in options:
        word, _, rest = lines.pop(0).partition(" ")
        options[word] = rest
    return Script(
        nodes=int(options["nodes"]),
        flags=shlex.split(options["flags"]),
        since=options["since"],
        sorted=options["sorted"] == "yes",
        lines=lines,
    )


def play(script: Script, product: servers.Product, *etcdctl: str, kind: type[Session] = Session) -> str:
    """Start a cluster, play a session with that program and its first arguments, end everything; the transcript."""
    with (
        servers.cluster(product, script.nodes, flags=script.flags) as cluster,
        tempfile.TemporaryDirectory() as directory,
    ):
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            node.wait_answer(messages.KV_RANGE, messages.range_(b"a"))
        session = _session(kind, etcdctl, cluster, Path(directory))
        session.sorted = script.sorted
        return session.play(script.lines)


def _session(kind: type[Session], etcdctl: tuple[str, ...], cluster: servers.Cluster, directory: Path) -> Session:
    leader = cluster.leader()
    status = {node.name: node.status() for node in cluster.nodes}
    header = next(v for f, v in messages.fields(leader.call(messages.STATUS, b"")) if f == 1 and isinstance(v, bytes))
    known = {messages.first_number(header, 1): "<cluster>"}
    texts = {}
    variables = {"$": "$", "EP": ",".join(cluster.endpoints), "LEADER": leader.endpoint, "DIR": str(directory)}
    texts[str(directory)] = "<dir>"
    ordered = sorted(cluster.nodes, key=lambda node: node is not leader)  # the leader is always the first
    for number, node in enumerate(ordered, 1):
        member_id = status[node.name]["member_id"]
        known[member_id] = f"<member{number}>"
        texts[node.endpoint] = f"<client{number}>"
        texts[f"{servers.HOST}:{node.peer_port}"] = f"<peer{number}>"
        variables |= {f"EP{number}": node.endpoint, f"ID{number}": f"{member_id:x}"}
        if len(ordered) > 1:
            texts[node.name] = f"<name{number}>"
    variables["FOLLOWER"] = ordered[-1].endpoint
    return kind(etcdctl, cluster, directory, variables, normalise.Names(known, texts))
