"""A file is kept equal to what the keys say, as confd does for a load balancer: etcdctl alone suffices."""

import os
import subprocess
from pathlib import Path
from typing import Final

import etcd3gw
import pytest

from bench import servers
from tests.conformance.clients import etcdctls
from tests.support.cluster import wait_until

PREFIX: Final = "/docker/node/"
RENDER: Final = """
"$ETCDCTL" get --prefix --print-value-only "$PREFIX" |
    awk 'BEGIN { print "upstream nodes {" } NF { print "    server " $1 ";" } END { print "}" }' > "$FILE.new"
mv "$FILE.new" "$FILE"
"""


def rendered(*addresses: str) -> str:
    """The file for these addresses."""
    return "\n".join(("upstream nodes {", *(f"    server {address};" for address in addresses), "}", ""))


def test_a_file_follows_the_nodes_that_register_and_vanish(node: servers.Node, tmp_path: Path) -> None:
    if not etcdctls():
        pytest.skip("no etcdctl found: install Debian's etcd-client")
    file = tmp_path / "nodes.conf"
    client = etcd3gw.client(host=servers.HOST, port=node.client_port, timeout=20, api_path="/v3/")
    client.put(f"{PREFIX}1", "10.0.0.1:80")
    etcdctl = next(iter(etcdctls().values()))
    environment = os.environ | {
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": node.endpoint,
        "ETCDCTL": etcdctl,
        "PREFIX": PREFIX,
        "FILE": str(file),
    }
    watch = [etcdctl, "watch", "--prefix", "--rev", "1", PREFIX, "--", "sh", "-c", RENDER]
    with subprocess.Popen(watch, stdout=subprocess.DEVNULL, env=environment) as renderer:
        try:
            expect(file, "10.0.0.1:80")
            lease = client.lease(ttl=60)
            client.put(f"{PREFIX}2", "10.0.0.2:80", lease=lease)
            expect(file, "10.0.0.1:80", "10.0.0.2:80")
            client.put(f"{PREFIX}1", "10.0.0.9:80")
            expect(file, "10.0.0.9:80", "10.0.0.2:80")
            lease.revoke()
            expect(file, "10.0.0.9:80")
            client.delete_prefix(PREFIX)
            expect(file)
        finally:
            renderer.kill()


def expect(file: Path, *addresses: str) -> None:
    """Wait until the file lists these addresses."""
    wait_until(lambda: file.exists() and file.read_text() == rendered(*addresses), f"{addresses} in {file}")
