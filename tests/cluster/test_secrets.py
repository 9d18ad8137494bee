"""Passwords and tokens after a busy time at the finest log level: in no log, page, answer, file, environment or command
line; and no other user of the machine comes near the sockets and files."""

import http.client
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench import processes, servers
from bench.servers import Node
from quorate.proto import rpc_pb2
from tests.cluster.guarded import NOBODY, Guarded, Refused, Way, guarded_cluster
from tests.support.cluster import SERVICES, restart_service, wait_until
from tests.support.rpc import refusal

PASSWORDS: Final = ("correct-horse-battery-staple", "a-second-horse-that-came-later", "nobody-has-this-password")
RANGE_A: Final = rpc_pb2.RangeRequest(key=b"a")
WAYS: Final[tuple[Way, ...]] = ("grpc", "gateway")


def private_key(path: Path) -> Path:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return path


@pytest.fixture(scope="module", params=["simple", "jwt"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    setting = "simple"
    if request.param == "jwt":
        key = private_key(tmp_path_factory.mktemp("keys") / "private.pem")
        setting = f"jwt,priv-key={key},sign-method=ES256,ttl=1h"
    with guarded_cluster(1, "--log-level=debug", f"--auth-token={setting}") as made:
        yield made


class Busy:
    """Somebody who does everything that carries a secret, rightly and wrongly, and keeps what is answered."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self.node = guarded.cluster.nodes[0]
        self.tokens: set[str] = set()
        self.answers: list[str] = []

    def work(self) -> None:
        first, second, wrong = PASSWORDS
        self.guarded.as_root("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="erin", password=first))
        self.log_in(first)
        change = rpc_pb2.AuthUserChangePasswordRequest(name="erin", password=second)
        self.guarded.as_root("Auth/UserChangePassword", change)
        for service in SERVICES:
            self.guarded.login(self.node, "root")
            restart_service(self.node, service)
            wait_until(self.is_served, f"the node serves again after the restart of its {service}")
        self.log_in(second)
        for password in (first, wrong, second * 10):
            self.fail_to_log_in(password)
        self.say_nonsense(second)

    def is_served(self) -> bool:
        try:
            self.guarded.call("gateway", self.node, "root", "KV/Range", RANGE_A)
        except (Refused, OSError):
            return False
        return True

    def log_in(self, password: str) -> None:
        token = self.guarded.login(self.node, "erin", password)
        self.tokens |= {token, self.guarded.tokens["root"]}
        for key, value in (("token", token), ("authorization", token), ("authorization", f"Bearer {token}")):
            caller = self.guarded.grpc(self.node)
            members = "/etcdserverpb.Cluster/MemberList"
            assert caller.channel.unary_unary(members)(b"", timeout=20, metadata=((key, value),))
            assert self.http("POST", "/v3/cluster/member/list", "{}", {"Authorization": value})[0] == 200

    def fail_to_log_in(self, password: str) -> None:
        for way in WAYS:
            request = rpc_pb2.AuthenticateRequest(name="erin", password=password)
            with pytest.raises(Refused) as refused:
                self.guarded.call(way, self.node, NOBODY, "Auth/Authenticate", request)
            self.answers.append(refused.value.text)

    def say_nonsense(self, password: str) -> None:
        """Requests that are wrong in form, with secrets in them."""
        token = next(iter(self.tokens))
        for body in (f'{{"name":"erin","password":"{password}"', f'{{"name":1,"password":["{password}"]}}', password):
            for path in ("/v3/auth/authenticate", "/v3/auth/user/add", f"/v3/{token}", f"/{password}"):
                self.answers.append(self.http("POST", path, body, {"Authorization": f"{token}x"})[1])
        caller = self.guarded.grpc(self.node)
        for method in ("Auth/Authenticate", "Auth/UserAdd", "KV/Range", "Nothing/There"):
            with pytest.raises(grpc.RpcError) as caught:
                caller.channel.unary_unary(f"/etcdserverpb.{method}")(
                    b"\x0a\xff" + password.encode(), timeout=20, metadata=(("token", f"{token}x"),)
                )
            self.answers.append(refusal(caught.value)[1])

    def http(self, verb: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(servers.HOST, self.node.client_port, timeout=20)
        try:
            connection.request(verb, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def shown(self) -> dict[str, bytes]:
        """Everything that anybody but the caller may see."""
        found = {"answers": "\n".join(self.answers).encode(), "log": self.node.log_path.read_bytes()}
        for page in ("/metrics", "/debug/vars", "/openapi.json", "/health", "/version", "/nothing"):
            headers = {"Authorization": next(iter(self.tokens))}
            found[page] = self.http("GET", page, None, headers)[1].encode()
        for pid in processes.marked(self.node.mark):
            found[f"command line of {pid}"] = processes.command_line(pid).encode()
            found[f"environment of {pid}"] = Path(f"/proc/{pid}/environ").read_bytes()
        return found


def test_secrets_are_nowhere_after_a_busy_time(guarded: Guarded) -> None:
    busy = Busy(guarded)
    busy.work()
    secrets = {text.encode() for text in (*PASSWORDS, *busy.tokens)}
    shown = busy.shown()
    assert [name for name, text in shown.items() if any(secret in text for secret in secrets)] == []
    run_directory = (busy.node.data_dir / "run").resolve()
    files = [path for path in (*busy.node.data_dir.rglob("*"), *run_directory.rglob("*")) if path.is_file()]
    passwords = [text.encode() for text in PASSWORDS]
    assert [str(path) for path in files if any(text in path.read_bytes() for text in passwords)] == []
    if any(token.count(".") == 2 for token in busy.tokens):  # JWT are kept by nobody
        assert [str(path) for path in files if any(secret in path.read_bytes() for secret in secrets)] == []


def places(node: Node) -> list[Path]:
    run_directory = (node.data_dir / "run").resolve()
    return [node.data_dir, run_directory, *node.data_dir.rglob("*"), *run_directory.rglob("*")]


def test_directories_files_and_sockets_are_closed_to_other_users(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        open_to_others = [place for place in places(node) if stat.S_IMODE(os.lstat(place).st_mode) & 0o077]
        assert [str(place) for place in open_to_others if not place.is_symlink()] == []


TRY_ALL: Final = """
import socket, sys
for path in sys.argv[1:]:
    try:
        if path.startswith("="):
            open(path[1:], "rb").close()
        else:
            socket.socket(socket.AF_UNIX).connect(path)
    except PermissionError:
        continue
    print(path)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can act as another user")
def test_another_user_of_the_machine_reaches_no_socket_and_no_file(guarded: Guarded) -> None:
    node = guarded.cluster.nodes[0]
    sockets = [str(place) for place in places(node) if stat.S_ISSOCK(os.lstat(place).st_mode)]
    files = [f"={place}" for place in places(node) if place.is_file()]
    assert len(sockets) >= 2
    assert len(files) >= 2
    other = pwd.getpwnam("nobody")
    as_nobody = ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable
    tried = subprocess.run(
        [*as_nobody, python, "-c", TRY_ALL, *sockets, *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert (tried.returncode, tried.stdout, tried.stderr) == (0, "", "")
