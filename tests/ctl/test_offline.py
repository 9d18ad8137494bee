"""`quorateutl defrag` and `migrate` on the data of nodes that ran, run, or are not ours."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from quorate.client import Client
from quorate.ctl.quorateutl import main
from tests.ctl.test_backup import ETCD_SNAPSHOT
from tests.support.cluster import quorate_cluster, wait_until

LIVE_BYTES = 200_000


def utl(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def test_a_defragmented_member_serves_what_it_had_from_a_smaller_file() -> None:
    with quorate_cluster() as cluster:
        node = cluster.nodes[0]
        with Client(node.endpoint) as client:
            for number in range(200):
                client.put(f"k{number % 20}", b"v" * (LIVE_BYTES // 20))
            client.compact(client.put("last", "1").header.revision, physical=True)
            before = client.get_prefix("")
        command = [sys.executable, "-m", "quorate.ctl.quorateutl", "defrag", "--data-dir", str(node.data_dir)]
        environment = {**os.environ, **node.product.environment}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            assert "waiting for the node" in waiting.stderr.readline()
            node.stop()
            assert "finished defragmenting" in waiting.stderr.read()
        assert waiting.returncode == 0
        assert (node.data_dir / "member" / "snap" / "db").stat().st_size < 2 * LIVE_BYTES
        assert "up-to-date" in utl("migrate", "--data-dir", node.data_dir, "--target-version", "3.6").stderr
        refused = utl("migrate", "--data-dir", node.data_dir, "--target-version", "3.5")
        assert (1, True) == (refused.exit_code, "cannot migrate from storage version 3.6.0 to 3.5" in refused.output)
        node.start()
        node.wait_ready()
        with Client(node.endpoint) as client:
            assert list(client.get_prefix("k").kvs) == [kv for kv in before.kvs if kv.key.startswith(b"k")]


def test_directories_without_our_data_are_refused(tmp_path: Path) -> None:
    database = tmp_path / "member" / "snap" / "db"
    for command in (("defrag",), ("migrate", "--target-version", "3.6")):
        assert "no such file or directory" in utl(*command, "--data-dir", tmp_path / "nothing").output
        database.parent.mkdir(parents=True, exist_ok=True)
        database.write_bytes(gzip.decompress(ETCD_SNAPSHOT.read_bytes()))
        assert "snapshot restore --skip-hash-check" in utl(*command, "--data-dir", tmp_path).output
        database.write_bytes(b"x" * 8192)
        assert utl(*command, "--data-dir", tmp_path).exit_code == 1


def test_a_leftover_of_a_killed_process_is_gone_when_the_node_has_started() -> None:
    with quorate_cluster() as cluster:
        node = cluster.nodes[0]
        node.kill()
        leftovers = [node.data_dir / "member" / "snap" / name for name in ("image.tmp", "export-x.tmp")]
        for path in leftovers:
            path.write_bytes(b"half")
        node.start()
        node.wait_ready()
        wait_until(lambda: not any(path.exists() for path in leftovers), "leftovers are gone")
