"""The command line itself: prefixes, flags, environment, formats and exit statuses, without a server."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from quorate.ctl import quoratectl, quorateutl
from quorate.ctl.failures import Failure
from quorate.ctl.print_json import Json
from quorate.ctl.settings import Settings, credentials
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2 as rpc
from tests.support.authority import Authority

NO_PORT = 'parse "http://a:99999": port out of range 0-65535'


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ETCDCTL_")]:
        monkeypatch.delenv(name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = quoratectl.run(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", sorted(quoratectl.COMMANDS))
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, _ = run(capsys, command, "--help")
    assert (status, out.startswith(f"Usage: quoratectl {command}")) == (0, True)


def test_a_command_may_be_shortened_until_it_is_ambiguous(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "vers")[1].startswith("quoratectl version: ")
    status, _, err = run(capsys, "e")
    assert (status, err.splitlines()[0]) == (1, 'Error: unknown command "e" for "quoratectl"')


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["get", "a", "--nosuch"], 1, "unknown flag: --nosuch"),
        (["get", "a", "--limit"], 1, "flag needs an argument: --limit"),
        (
            ["get", "a", "--rev", "x"],
            1,
            'invalid argument "x" for "--rev" flag: strconv.ParseInt: parsing "x": invalid syntax',
        ),
        (
            ["get", "a", "--prefix=maybe"],
            1,
            'invalid argument "maybe" for "--prefix" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            ["--command-timeout", "x", "get", "a"],
            1,
            'invalid argument "x" for "--command-timeout" flag: time: invalid duration "x"',
        ),
        (["put"], 128, "put command needs 1 argument and input from stdin or 2 arguments"),
        (["put", "a", "b", "-w", "xml"], 4, "unsupported output format"),
        (["get", "a", "--endpoints", ""], 2, "etcdclient: no available endpoints"),
        (["put", "a", "b", "--cacert", "/no/such/file"], 1, "open /no/such/file: no such file or directory"),
        (["check", "perf", "--load", "z"], 4, "unknown load option z"),
        (["make-mirror"], 128, "make-mirror takes one destination argument"),
        (["make-mirror", "x:1", "--max-txn-ops", "0"], 128, "`--max-txn-ops` has to be at least 1"),
        (["put", "a", "b", "-w=xml"], 4, "unsupported output format"),
        (
            ["member", "add", "m", "--peer-urls", "http://a:99999"],
            1,
            'parse "http://a:99999": port out of range 0-65535',
        ),
        (["move-leader", "zz"], 128, 'strconv.ParseUint: parsing "zz": invalid syntax'),
        (
            ["member", "remove", "zz"],
            128,
            'bad member ID arg (strconv.ParseUint: parsing "zz": invalid syntax), expecting ID in Hex',
        ),
        (["watch", "a", "b", "--prefix"], 128, "`range_end` and `--prefix` are mutually exclusive"),
    ],
)
def test_what_cannot_be_done_is_said_with_etcdctls_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, text: str
) -> None:
    ended, out, err = run(capsys, *arguments)
    assert (ended, err.splitlines()[0], out) == (status, f"Error: {text}", "")


def test_a_file_for_tls_that_is_of_no_use_is_named_before_anything_is_dialled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "Good")
    cert, key, issued = authority.files("Own", Subject("own"), Purpose.CLIENT)
    _, other_key, _ = authority.files("Other", Subject("other"), Purpose.CLIENT)
    nothing, locked = str(tmp_path / "nothing.pem"), str(tmp_path / "locked.pem")
    Path(nothing).write_text("nothing")
    secret = serialization.BestAvailableEncryption(b"secret")
    pem = issued.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    Path(locked).write_bytes(pem)
    for flags, text in (
        (["--cacert", nothing], f"{nothing}: no certificate of an authority in PEM"),
        (["--cacert", str(tmp_path)], f"{tmp_path}: is a directory"),
        (["--cert", cert, "--key", other_key], f"{other_key}: not the key of {cert}"),
        (["--cert", nothing, "--key", key], f"{nothing}: no certificate in PEM"),
        (["--cert", cert, "--key", nothing], f"{nothing}: no private key in PEM"),
        (["--cert", cert, "--key", locked], f"{locked}: locked with a passphrase; take that off the key"),
    ):
        ended = run(capsys, "get", "a", "--endpoints", "https://127.0.0.1:1", *flags)
        assert ended == (1, "", f"Error: open {text}\n")


def test_a_password_that_nobody_types_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(capsys, "user", "add", "alice") == (128, "Password of alice: ", "Error: empty password\n")


def test_global_flags_may_stand_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["-w", "xml", "get", "a"], ["get", "-w", "xml", "a"], ["get", "a", "--write-out=xml"]):
        assert run(capsys, *arguments)[::2] == (4, "Error: unsupported output format\n")


def test_settings_come_from_flags_and_then_from_the_environment() -> None:
    settings = Settings.gather(
        {"endpoints": ("a:1,b:2", "c:3"), "hex": True}, {"ETCDCTL_COMMAND_TIMEOUT": "1m", "ETCDCTL_DEBUG": "false"}
    )
    assert settings.endpoints == ("a:1", "b:2", "c:3")
    assert (settings.hex, settings.command_timeout, settings.write_out) == (True, 60.0, "simple")


def test_a_variable_beside_its_flag_is_fatal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure):
        Settings.gather({"endpoints": ("a:1",)}, {"ETCDCTL_ENDPOINTS": "b:1"})
    assert "conflicting environment variable is shadowed by corresponding command-line flag" in capsys.readouterr().err


def test_an_unknown_variable_is_warned_of_and_the_api_version_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    Settings.gather({}, {"ETCDCTL_API": "3", "ETCDCTL_WATCH_KEY": "k"})
    assert capsys.readouterr().err == ""
    Settings.gather({}, {"ETCDCTL_NOSUCH": "1"})
    assert '"environment-variable":"ETCDCTL_NOSUCH=1"' in capsys.readouterr().err


def test_tls_is_wanted_when_files_are_given_or_plain_connections_are_not() -> None:
    assert Settings().tls() is None
    assert Settings(cacert="ca.pem").tls() is not None
    assert Settings(insecure_transport=False).tls() is not None
    assert Settings(insecure_skip_tls_verify=True).tls() is None
    assert Settings(insecure_skip_tls_verify=True, endpoints=("https://a:1",)).tls() is not None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts_ask_this_program(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    status, out, _ = run(capsys, "completion", shell)
    assert (status, "_QUORATECTL_COMPLETE" in out) == (0, True)


def test_help_loads_no_command_and_no_grpc() -> None:
    check = (
        "import sys\n"
        "from quorate.ctl import quoratectl\n"
        "quoratectl.run(['--help'])\n"
        "print(sorted({'grpc', 'google.protobuf', 'quorate.ctl.kv'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, env=_environment())
    assert ran.stderr.strip() == "[]"


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_offline_tool_has_completion_scripts_too(shell: str) -> None:
    written = CliRunner().invoke(quorateutl.main, ["completion", shell])
    assert written.exit_code == 0
    assert "_QUORATEUTL_COMPLETE" in written.stdout


@pytest.mark.parametrize(
    ("program", "line", "expected"),
    [("quoratectl", "quoratectl mem", "member"), ("quorateutl", "quorateutl snapshot res", "restore")],
)
def test_a_shell_is_told_how_a_word_goes_on(program: str, line: str, expected: str) -> None:
    asked = {f"_{program.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    start = f"import sys; sys.argv = ['{program}']; from quorate.ctl.{program} import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=True, env=_environment() | asked
    )
    assert ran.stdout == f"plain,{expected}\n"


def test_a_variable_without_a_value_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Settings.gather({}, {"ETCDCTL_ENDPOINTS": "", "ETCDCTL_DIAL_TIMEOUT": ""})
    assert (found.endpoints, found.dial_timeout) == (("127.0.0.1:2379",), 2.0)
    assert '"environment-variable":"ETCDCTL_ENDPOINTS="' in capsys.readouterr().err


def test_what_is_shown_of_the_settings_has_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    Settings.gather({"debug": True, "user": "root:secret"}, {"ETCDCTL_PASSWORD": "secret"})
    shown = capsys.readouterr().err
    assert "secret" not in shown
    assert "ETCDCTL_USER=root:***" in shown


def test_a_password_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\nsecond\nthird\n"))
    settings = Settings(user="once")
    for _ in range(2):
        credentials(settings.user, settings.password, settings.prompt)
    assert credentials("once", "", settings.prompt) == ("once", "first")
    assert credentials("once", "", "Destination Password: ") == ("once", "second")
    assert capsys.readouterr().out == "Password: Destination Password: "


def test_identities_in_hexadecimal_need_no_header(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    Json(hex_wanted=True).members(rpc.MemberListResponse(members=[rpc.Member(name="proxy")]))
    Json(hex_wanted=True).members(rpc.MemberListResponse())
    assert capsysbinary.readouterr().out == b'{"members":[{"name":"proxy"}]}\n{}\n'
