"""quoratectl reads like etcdctl: the same sessions, played with it against real etcd.

The transcripts were recorded with etcdctl 3.5; DIFFERENCES says what etcdctl 3.6 writes otherwise and what quoratectl
leaves out, each with its reason.
"""

import io
import re
import sys
from typing import Final

import pytest

from bench import servers
from quorate.ctl import kv, quoratectl
from quorate.ctl.version import own_version
from tests.conformance import session
from tests.conformance.conftest import etcd_or_skip
from tests.conformance.sessions import ALL, GOLDEN
from tests.conformance.test_transcripts import differences

Rule = tuple[str, str]  # what the transcript of etcdctl 3.5 has, and what quoratectl writes there

EVERYWHERE: Final[tuple[Rule, ...]] = (
    # log lines of etcd's Go client: the error follows anyway
    (r"! warn: retrying of unary invoker failed: .*\n", ""),
)
STATUS_36: Final[tuple[Rule, ...]] = (
    # 3.6 says more of an endpoint
    (r'("Version" : "<version>"\n)', r'\1"StorageVersion" : ""\n'),
    (r'("DBSize" : <size>\n)', r'\1"DBSizeInUse" : <size>\n"DBSizeQuota" : 0\n'),
    (r'("Endpoint" : "\S+"\n)(?=\n)', r'\1"DowngradeTargetVersion" : ""\n"DowngradeEnabled" : false\n'),
    (
        r"\| ENDPOINT \| ID \| VERSION \| .* \| ERRORS \|",
        (
            "| ENDPOINT | ID | VERSION | STORAGE VERSION | DB SIZE | IN USE | PERCENTAGE NOT IN USE | QUOTA "
            "| IS LEADER | IS LEARNER | RAFT TERM | RAFT INDEX | RAFT APPLIED INDEX | ERRORS "
            "| DOWNGRADE TARGET VERSION | DOWNGRADE ENABLED |"
        ),
    ),
    (
        (
            r"(\| (?:http://)?<client\d> \| <member\d> \| )<volatile> \| <volatile> (\| true|\| false)"
            r" (\| .* \| <volatile> \| <volatile> \| <volatile> \|  \|)"
        ),
        r"\1<volatile> | <volatile> | <volatile> | <volatile> | <volatile> | <volatile> \2 \3  | false |",
    ),
    # and at which revision the hash was taken; a server of 3.5 does not tell
    (r"^((?:http://)?<client\d>, \d+)$", r"\1, 0"),
    (r'("Hash" : \d+\n)', r'\1"HashRevision" : 0\n'),
    (r"\| ENDPOINT \| HASH \|", "| ENDPOINT | HASH | HASH REVISION |"),
    (r"^(\| (?:http://)?<client\d> \| \d+ \|)$", r"\1 0 |"),
)
DIFFERENCES: Final[dict[str, tuple[Rule, ...]]] = {
    # 3.6 shows lease ids in hexadecimal too when that is wanted
    "get": ((r'(?s)(\$ get a -w fields --hex\n.*?)"Lease" : 0', r'\1"Lease" : <id2>'),),
    # 3.6 warns before it deletes a range without --range
    "del": (
        (
            r"(?s)(\$ del (b|d) (d|b)(?: --prev-kv)?\n)(.*?)(?=\$)",
            (
                r'\1\4! Warning: Keys between "\2" and "\3" will be deleted. Please interrupt the command within '
                r"next 2 seconds to cancel. You can provide `--range` flag to avoid the warning.\n"
            ),
        ),
    ),
    # 3.6 hides the revision where it means nothing, and no longer misspells clientURLs
    "member_list": ((r'"Revision" : 0\n', ""), (r'"clientURLS"', '"clientURLs"')),
    # 3.6 says that a member was added as learner
    "member_change": ((r"(Member <id2>) added to", r"\1 added as learner to"),),
    # log lines of etcd's Go client
    "snapshot": ((r"! info: .*\n", ""),),
    # the program has its own name and version; an unknown command is said once
    "global_flags": (
        (r"etcdctl version: \S+\nAPI version: \S+", f"quoratectl version: {own_version()}\nAPI version: 3.6"),
        (r'(?s)(! Error: unknown command "nosuchcommand" for "etcdctl"\n.*?\n).*?\n', r"\1"),
        (r"etcdctl(?=\"| --help)", "quoratectl"),
    ),
    "alarm": STATUS_36,
    "endpoint": STATUS_36,
    "endpoints3": STATUS_36,
}
RUNS_PROGRAMS: Final = frozenset({"lock"})  # whose output goes past Python's standard output


class InThisProcess(session.Session):
    """Runs commands without starting a process for each; those beside the session are processes still."""

    def _run(self, text: str, stdin: str) -> tuple[int, str, str]:
        stdout, stderr = io.TextIOWrapper(out := io.BytesIO()), io.StringIO()
        arguments = self._arguments(text)[len(self.etcdctl) :]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            patch.setattr(kv, "WARNING_S", 0.0)
            status = quoratectl.run(arguments)
        stdout.flush()
        self.last_output = out.getvalue().decode(errors="backslashreplace")
        return status, self.last_output, stderr.getvalue()


def expected(name: str) -> str:
    """What quoratectl should write in this session."""
    text = (GOLDEN / "etcdctl-3.5" / f"{name}.txt").read_text()
    for pattern, replacement in EVERYWHERE + DIFFERENCES.get(name, ()):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


@pytest.mark.parametrize("name", sorted(ALL))
def test_session_reads_as_with_etcdctl(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in servers.quorate().environment.items():
        monkeypatch.setenv(variable, value)
    kind = session.Session if name in RUNS_PROGRAMS else InThisProcess
    program = (sys.executable, "-m", "quorate.ctl.quoratectl")
    actual = session.play(session.read(name), etcd_or_skip(), *program, kind=kind)
    assert not (found := differences(expected(name), actual)), found
