"""Mirrors between real etcd and Quorate, made by etcdctl and by quoratectl, both ways; and endpoints in DNS."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import servers
from bench.servers import Cluster
from quorate.client import Client
from quorate.ctl import quoratectl
from quorate.node import srv
from tests.support.cluster import product_cluster, quorate_cluster, wait_until
from tests.support.names import name_server
from tests.support.secure import secured_cluster

ETCDCTL = shutil.which("etcdctl")
PROGRAMS = {
    "etcdctl": [str(ETCDCTL)],
    "quoratectl": [sys.executable, "-m", "quorate.ctl.quoratectl"],
}


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Cluster]]:
    try:
        etcd = servers.etcd()
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    with quorate_cluster() as own, product_cluster(etcd) as other:
        yield {"quorate": own, "etcd": other}


@contextmanager
def running(program: str, *arguments: str) -> Iterator[None]:
    """A command that runs until the block ends."""
    environment = os.environ | servers.quorate().environment | {"ETCDCTL_API": "3"}
    command = [*PROGRAMS[program], *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


@pytest.mark.parametrize("program", list(PROGRAMS))
@pytest.mark.parametrize(("source", "target"), [("etcd", "quorate"), ("quorate", "etcd")])
def test_a_mirror_follows_its_source(both: dict[str, Cluster], program: str, source: str, target: str) -> None:
    if program == "etcdctl" and ETCDCTL is None:
        pytest.skip("needs etcdctl: apt-get install etcd-client")
    prefix, copied = f"{program}/{source}/", f"copy/{program}/{source}/"
    with Client(both[source].endpoints, timeout_s=20.0) as original, Client(both[target].endpoints) as copy:

        def pairs(client: Client, beginning: str) -> dict[bytes, bytes]:
            found = client.get_prefix(beginning).kvs
            return {kv.key.removeprefix(beginning.encode()): kv.value for kv in found}

        for number in range(20):
            original.put(f"{prefix}{number}", str(number))
        original.put(f"elsewhere/{program}/{source}", "x")
        flags = ["--prefix", prefix, "--dest-prefix", copied]
        ends = both[source].endpoints[0], both[target].endpoints[0]
        with running(program, "--endpoints", ends[0], "make-mirror", *flags, ends[1]):
            wait_until(lambda: len(pairs(copy, copied)) == 20, "what was there is copied")
            original.put(f"{prefix}new", b"\x00\xff")
            original.delete(f"{prefix}3")
            original.put(f"{prefix}4", "changed")
            wait_until(lambda: pairs(copy, copied) == pairs(original, prefix), "what comes is copied")
        assert pairs(copy, copied)[b"new"] == b"\x00\xff"
        assert not copy.get(f"elsewhere/{program}/{source}").kvs


def test_endpoints_of_commands_come_from_srv_records(
    both: dict[str, Cluster], monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    port = both["quorate"].nodes[0].client_port
    with name_server({"_etcd-client._tcp.example.com": [f"0 0 {port} localhost."]}) as address:
        monkeypatch.setenv(srv.NAMESERVER_VARIABLE, address)
        assert quoratectl.run(["--discovery-srv", "example.com", "put", "found", "1"]) == 0
        assert quoratectl.run(["-d", "example.com", "--discovery-srv-name", "blue", "get", "found"]) == 2
        assert quoratectl.run(["-d", "example.com", "--insecure-discovery=false", "get", "found"]) == 2
    shown = capsysbinary.readouterr()
    assert shown.out == b"OK\n"
    assert b"error querying DNS SRV records for _etcd-client-blue" in shown.err


def test_endpoints_of_srv_records_prove_that_they_belong_to_the_domain_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secured_cluster(tmp_path, 1) as secured:
        record = [f"0 0 {secured.cluster.nodes[0].client_port} localhost."]
        names = {f"_etcd-client-ssl._tcp.{domain}": record for domain in ("localhost", "example.com")}
        flags = ["--cacert", str(secured.authority.ca_file), "--cert", secured.cert, "--key", secured.key]
        with name_server(names) as address:
            monkeypatch.setenv(srv.NAMESERVER_VARIABLE, address)
            for domain, insecure, is_answered in (
                ("localhost", "false", True),  # the certificate of the node is for this name
                ("example.com", "false", False),
                ("example.com", "true", True),
            ):
                words = [*flags, "-d", domain, f"--insecure-discovery={insecure}", "--command-timeout=2s", "get", "a"]
                assert (quoratectl.run(words) == 0) is is_answered, (domain, insecure)
