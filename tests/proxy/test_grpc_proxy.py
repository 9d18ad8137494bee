"""`quorate grpc-proxy start` between clients and clusters."""

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from bench import servers
from bench.ports import free_port
from bench.servers import Cluster
from quorate.client import AsyncClient, Client
from quorate.client.txn import Txn, get, put, value
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2 as rpc
from quorate.proto import v3election_pb2, v3lock_pb2
from quorate.proxy.__main__ import cli
from tests.support.authority import Authority
from tests.support.cluster import product_cluster, quorate_cluster, wait_until
from tests.support.proxies import Proxy, command, proxy
from tests.support.rpc import Caller, calling, refusal
from tests.support.secure import secured_cluster

NAMESPACE = "team/"


@pytest.fixture(scope="module", params=["quorate", "etcd"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    try:
        product = servers.product(request.param)
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    with product_cluster(product) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def plain(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that changes nothing."""
    directory = tmp_path_factory.mktemp("plain")
    with proxy(directory, "grpc-proxy", "start", "--endpoints", cluster.endpoints[0]) as started:
        yield started


@pytest.fixture(scope="module")
def spaced(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with a namespace."""
    words = ["--endpoints", cluster.endpoints[0], "--namespace", NAMESPACE]
    with proxy(tmp_path_factory.mktemp("spaced"), "grpc-proxy", "start", *words) as started:
        yield started


def page(endpoint: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_calls_leases_and_watches_pass_unchanged(plain: Proxy) -> None:
    async def use() -> list[bytes]:
        async with AsyncClient([plain.endpoint], timeout_s=20.0) as client, await client.lease(20) as lease:
            seen = []
            async with client.watch_prefix("w/", start_revision=1) as watch:
                await client.put("w/1", "a", lease=lease.lease_id)
                await client.put("w/2", "b")
                async for response in watch:
                    seen += [event.kv.key for event in response.events]
                    if len(seen) == 2:
                        break
            assert (await client.time_to_live(lease.lease_id, keys=True)).keys == [b"w/1"]
            assert (await client.renew(lease.lease_id)).TTL == 20
            return seen

    assert asyncio.run(use()) == [b"w/1", b"w/2"]


def test_refusals_arrive_with_code_and_text(plain: Proxy) -> None:
    with calling(plain.endpoint) as caller:
        with pytest.raises(grpc.RpcError) as refused:
            caller.unary("KV/Put", rpc.PutRequest())
        assert refusal(refused.value) == ("INVALID_ARGUMENT", "etcdserver: key is not provided")


def test_a_snapshot_passes_whole(plain: Proxy, cluster: Cluster) -> None:
    def size(endpoint: str) -> int:
        with calling(endpoint) as caller:
            blobs = caller.stream("Maintenance/Snapshot", [rpc.SnapshotRequest()], 30.0)
            return sum(len(blob.blob) for blob in blobs)

    assert size(plain.endpoint) == size(cluster.endpoints[0])


def test_a_namespace_hides_every_other_key(spaced: Proxy, cluster: Cluster) -> None:
    with Client([spaced.endpoint], timeout_s=20.0) as inside, Client(cluster.endpoints) as outside:
        outside.put("foreign", "x")
        outside.put("team0", "x")
        inside.put("a", "1")
        inside.put("b", "2")
        assert outside.get(NAMESPACE + "a").kvs[0].value == b"1"
        assert [kv.key for kv in inside.get("\0", b"\0").kvs] == [b"a", b"b"]
        done = inside.commit(Txn().when(value("a").equals("1")).then(put("c", "3"), get("b")))
        assert done.succeeded
        assert done.responses[1].response_range.kvs[0].key == b"b"
        assert [kv.key for kv in outside.get_prefix(NAMESPACE).kvs] == [b"team/a", b"team/b", b"team/c"]
        assert inside.delete("\0", b"\0").deleted == 3
        assert outside.get("team0").kvs
        assert outside.get("foreign").kvs


def test_watchers_leases_locks_and_elections_stay_in_the_namespace(spaced: Proxy, cluster: Cluster) -> None:
    async def watch() -> list[bytes]:
        async with AsyncClient([spaced.endpoint], timeout_s=20.0) as inside, AsyncClient(cluster.endpoints) as outside:
            start = (await outside.put("foreign", "y")).header.revision
            await outside.put("x", "out")
            await inside.put("x", "in")
            await inside.delete("x")
            seen: list[bytes] = []
            async with inside.watch("\0", b"\0", start_revision=start, prev_kv=True) as watch:
                async for response in watch:
                    seen += [event.kv.key + b"=" + event.prev_kv.key for event in response.events]
                    if len(seen) == 2:
                        return seen
        return seen

    assert asyncio.run(watch()) == [b"x=", b"x=x"]
    with calling(spaced.endpoint) as inside, Client(cluster.endpoints) as outside:
        lease = inside.unary("Lease/LeaseGrant", rpc.LeaseGrantRequest(TTL=30)).ID
        outside.put("foreign", "z", lease=lease)
        _lock_and_unlock(inside, outside, lease)
        _lead_and_resign(inside, outside, lease)


def _lock_and_unlock(inside: Caller, outside: Client, lease: int) -> None:
    held = inside.unary("Lock/Lock", v3lock_pb2.LockRequest(name=b"door", lease=lease))
    assert held.key == b"door/%x" % lease
    assert outside.get(NAMESPACE.encode() + held.key).kvs
    keys = inside.unary("Lease/LeaseTimeToLive", rpc.LeaseTimeToLiveRequest(ID=lease, keys=True)).keys
    assert list(keys) == [held.key]
    inside.unary("Lock/Unlock", v3lock_pb2.UnlockRequest(key=held.key))
    assert not outside.get(NAMESPACE.encode() + held.key).kvs


def _lead_and_resign(inside: Caller, outside: Client, lease: int) -> None:
    candidate = v3election_pb2.CampaignRequest(name=b"boss", lease=lease, value=b"me")
    leader = inside.unary("Election/Campaign", candidate).leader
    assert (leader.name, leader.key) == (b"boss", b"boss/%x" % lease)
    inside.unary("Election/Proclaim", v3election_pb2.ProclaimRequest(leader=leader, value=b"still me"))
    found = inside.unary("Election/Leader", v3election_pb2.LeaderRequest(name=b"boss")).kv
    assert (found.key, found.value) == (leader.key, b"still me")
    assert outside.get(NAMESPACE.encode() + leader.key).kvs
    inside.unary("Election/Resign", v3election_pb2.ResignRequest(leader=leader))
    assert not outside.get(NAMESPACE.encode() + leader.key).kvs


def test_health_and_figures_are_pages_of_the_same_port(plain: Proxy) -> None:
    assert page(plain.endpoint, "/health") == (200, '{"health":"true","reason":""}')
    assert page(plain.endpoint, "/proxy/health") == (200, '{"health":"true","reason":""}')
    status, own = page(plain.endpoint, "/proxy/metrics")
    assert status == 200
    assert 'grpc_server_handled_total{grpc_code="OK"' in own
    status, theirs = page(plain.endpoint, "/metrics")
    assert status == 200
    assert "etcd_server_has_leader" in theirs
    assert page(plain.endpoint, "/nothing")[0] == 404


def test_member_list_keeps_clients_at_the_proxy(plain: Proxy) -> None:
    with calling(plain.endpoint) as caller:
        members = caller.unary("Cluster/MemberList", rpc.MemberListRequest()).members
    assert [list(member.clientURLs) for member in members] == [["127.0.0.1:23790"]]


def test_registered_proxies_are_found_by_each_other_and_gone_after_their_ttl(cluster: Cluster, tmp_path: Path) -> None:
    def words(address: str) -> list[str]:
        own = ["--advertise-client-url", address, "--resolver-prefix", "proxies", "--resolver-ttl", "2"]
        return ["grpc-proxy", "start", "--endpoints", cluster.endpoints[0], *own]

    def listed(endpoint: str) -> list[str]:
        with calling(endpoint) as caller:
            members = caller.unary("Cluster/MemberList", rpc.MemberListRequest()).members
        return sorted(url for member in members for url in member.clientURLs)

    with Client(cluster.endpoints) as client, proxy(tmp_path, *words("one:1")) as first:
        with proxy(tmp_path, *words("two:2")):
            wait_until(lambda: listed(first.endpoint) == ["one:1", "two:2"], "both are listed")
            found = json.loads(client.get("proxies/two:2").kvs[0].value)
            assert found["Addr"] == "two:2"
            assert set(json.loads(found["Metadata"])) == {"name"}
        wait_until(lambda: listed(first.endpoint) == ["one:1"], "the second is gone")


def test_a_member_that_is_gone_costs_no_call(tmp_path: Path) -> None:
    with quorate_cluster(3) as cluster:
        words = ["--endpoints", ",".join(cluster.endpoints)]
        with (
            proxy(tmp_path, "grpc-proxy", "start", *words) as started,
            Client([started.endpoint], timeout_s=20.0) as client,
        ):
            client.put("a", "0")
            follower = next(node for node in cluster.nodes if node is not cluster.leader())
            follower.stop()
            for number in range(12):
                client.put("a", str(number))
                assert client.get("a").kvs[0].value == str(number).encode()


def test_without_any_member_calls_are_refused_and_health_says_so(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with proxy(tmp_path, "grpc-proxy", "start", "--endpoints", nobody) as started, calling(started.endpoint) as caller:
        with pytest.raises(grpc.RpcError) as refused:
            caller.unary("KV/Range", rpc.RangeRequest(key=b"a"))
        assert refusal(refused.value) == ("UNAVAILABLE", "etcdclient: no available endpoints")
        status, body = page(started.endpoint, "/health")
        assert (status, json.loads(body)["health"]) == (503, "false")
        assert page(started.endpoint, "/metrics")[0] == 503


def test_certificates_on_both_sides(tmp_path: Path) -> None:
    with secured_cluster(tmp_path, 1) as secured:
        clients = Authority(tmp_path, "clients")
        cert, key, _ = clients.files("proxy-server", Subject("proxy", ("127.0.0.1",)), Purpose.SERVER)
        shown = clients.files("alice", Subject("alice"), Purpose.CLIENT)
        revoked = clients.files("mallory", Subject("mallory"), Purpose.CLIENT)
        words = [
            *("--endpoints", f"https://{secured.cluster.endpoints[0]}"),
            *("--cacert", str(secured.authority.ca_file), "--cert", secured.cert, "--key", secured.key),
            *("--cert-file", cert, "--key-file", key, "--trusted-ca-file", str(clients.ca_file)),
            *("--client-crl-file", clients.revoke(tmp_path / "crl.pem", revoked[2])),
        ]
        with proxy(tmp_path, "grpc-proxy", "start", *words) as started:
            with calling(started.endpoint, credentials=clients.credentials(*shown[:2])) as caller:
                assert caller.unary("KV/Put", rpc.PutRequest(key=b"a")).header.revision > 1
            for bad in (clients.credentials(), clients.credentials(*revoked[:2])):
                with calling(started.endpoint, credentials=bad) as caller, pytest.raises(grpc.RpcError):
                    caller.unary("KV/Put", rpc.PutRequest(key=b"a"), 2.0)


def refused(*words: str) -> str:
    ended = CliRunner().invoke(cli, ["grpc-proxy", "start", *words])
    assert ended.exit_code == 1, ended.output
    return ended.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--resolver-prefix", "p"], "invalid resolver-ttl 0\n"),
        (["--resolver-ttl", "5"], 'invalid resolver-prefix ""\n'),
        (["--resolver-prefix=p", "--resolver-ttl=5", "--advertise-client-url="], 'invalid advertise-client-url ""\n'),
        (["--cert-file", "x"], "KeyFile and CertFile must both be present[key: , cert: x]\n"),
        (["--listen-cipher-suites", "x", "--auto-tls"], 'unexpected TLS cipher suite "x"\n'),
    ],
)
def test_flags_that_do_not_fit_are_refused(words: list[str], sentence: str) -> None:
    assert refused(*words) == sentence


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    words, environment = command("grpc-proxy", "start", "--cert-file", "/none", "--key-file", "/none")
    ended = subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "open /none: no such file or directory\n")


def test_an_authority_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for name, reason in (
        ("none.pem", "no such file or directory"),
        ("ca.pem", "no certificate of an authority in pem"),
    ):
        words, environment = command("grpc-proxy", "start", "--listen-addr", "127.0.0.1:0", "--cacert", name)
        ended = subprocess.run(
            words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (ended.returncode, ended.stderr) == (1, f"open {name}: {reason}\n")
