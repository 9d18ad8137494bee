"""The deployments of docs/operations.md, command by command."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.test_compose import engine_answers
from tests.conformance.clients import etcdctls
from tests.support import document
from tests.support.document import Shell

IN_CONTAINERS: Final = "A container with a configuration file"
PLAYED: Final = [
    heading for heading in document.headings("Deployments") if heading not in (IN_CONTAINERS, "Kubernetes")
]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with document.shell(tmp_path) as opened:
        yield opened


@pytest.mark.skipif(not etcdctls() or shutil.which("curl") is None, reason="etcdctl or curl is not installed")
@pytest.mark.parametrize("heading", PLAYED)
def test_a_deployment_says_what_the_document_shows(shell: Shell, heading: str) -> None:
    shell.play(document.blocks(heading, 3))


@pytest.mark.timeout(900)
def test_a_container_takes_a_configuration_file(tmp_path: Path) -> None:
    if not engine_answers():
        pytest.skip("no Docker engine answers")
    with document.shell(tmp_path) as shell:
        file, commands, answer = document.blocks(IN_CONTAINERS, 3)
        name = f"quorate-{shell.mark}"
        shell.write(file.text)
        text = commands.text.replace(" n1 ", f" {name} ").replace("--volumes n1", f"--volumes {name}")
        text = text.replace("--tag quorate .", f"--tag quorate {document.ROOT}")
        text = text.replace("--wait 60\n", "--wait 240\n")  # many tests may share the machine
        try:
            said = shell.run(text)
        finally:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, timeout=60, check=False)
        assert document.is_shown(said, answer.text.replace("\nn1\n", f"\n{name}\n")), said
