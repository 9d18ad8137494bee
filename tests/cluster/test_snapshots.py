"""Backups of real nodes with a real etcdctl."""

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tests.cluster.writing import put
from tests.support.cluster import quorate_cluster


@pytest.mark.skipif(shutil.which("etcdctl") is None, reason="etcdctl is not installed")
def test_etcdctl_saves_a_snapshot(tmp_path: Path) -> None:
    with quorate_cluster() as cluster:
        for number in range(100):
            put(cluster.nodes[0], b"k%d" % number, b"v" * 1000)
        file = tmp_path / "db"
        command = ["etcdctl", "--endpoints", cluster.nodes[0].endpoint, "snapshot", "save", str(file)]
        subprocess.run(command, check=True, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, timeout=30)
        content = file.read_bytes()
        assert sha256(content[:-32]).digest() == content[-32:]
        assert len(content) > 100_000
