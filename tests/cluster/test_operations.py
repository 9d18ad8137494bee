"""The commands of docs/operations.md about TLS, run as they stand there but for the ports."""

import shutil
from pathlib import Path

import pytest

from tests.conformance.clients import etcdctls
from tests.support import document


@pytest.mark.skipif(not etcdctls() or shutil.which("curl") is None, reason="etcdctl or curl is not installed")
def test_the_commands_about_tls_do_what_they_say(tmp_path: Path) -> None:
    certificates, node, clients, *_update = [block.text for block in document.blocks("TLS") if block.language == "sh"]
    with document.shell(tmp_path) as shell:
        assert shell.run(certificates).count("good for") == 3
        shell.start(node)
        shell.wait_ready()
        told = shell.run(clients)
    assert told.startswith("OK\nfoo\nbar\n")
    assert '"health":"true"' in told
    assert '"name":"m1"' in told
