"""Commands of the README and docs/operations.md beside which no answer is shown, run as they stand but for places."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.clients import etcdctls
from tests.support import document
from tests.support.document import ROOT, Shell

pytestmark = pytest.mark.skipif(
    not etcdctls() or shutil.which("curl") is None, reason="etcdctl or curl is not installed"
)
ENDPOINT = "export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=127.0.0.1:2379\n"


def indented(path: Path, heading: str) -> list[str]:
    """The blocks of commands below a heading that are set in by four spaces."""
    section = re.split(r"^##+ ", path.read_text().split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    return [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Shell]:
    """One node, begun as the document says."""
    with document.shell(tmp_path) as shell:
        shell.start(document.blocks("One node", 3)[0].text)
        shell.wait_ready()
        yield shell


def test_the_readme_can_be_typed_in(node: Shell) -> None:
    with_etcdctl, with_gateway, as_text = indented(ROOT / "README.md", "Using it")
    transaction = """printf 'value("greeting") = "hello"\\n\\nput foo baz\\n\\n\\n' | etcdctl txn --interactive"""
    said = node.run(ENDPOINT + with_etcdctl.replace("etcdctl txn --interactive", transaction))
    assert said.startswith('OK\n{"header":')
    assert "\ngreeting\n" in said
    assert said.endswith("SUCCESS\n\nOK\n")
    said = node.run(with_gateway.replace("curl ", "curl --silent "))
    assert '"key":"Zm9v"' in said
    assert said.endswith('{"health":"true","reason":""}')
    said = node.run(as_text.replace("curl ", "curl --silent "))
    assert '"key":"greeting","value":"hello"' in said
    assert "Swagger UI" in node.run("curl --silent http://127.0.0.1:2379/docs")


def test_users_are_made_and_authentication_turned_on(node: Shell) -> None:
    (commands,) = document.blocks("Users and roles")
    assert node.run(ENDPOINT + commands.text).endswith("Authentication Enabled\nOK\n")
    refused = "etcdctl --user app:other put other/key value 2>&1 || true"
    assert "permission denied" in node.run(ENDPOINT + refused)


def test_a_backup_becomes_a_cluster_of_three(node: Shell, tmp_path: Path) -> None:
    save, restore, start, *_ = indented(document.OPERATIONS, "Backup and restore")
    node.run(f"{ENDPOINT}etcdctl put kept before")
    assert "| TOTAL KEYS |" in node.run(save)
    for number in (1, 2, 3):
        node.run(place(restore, number, tmp_path))
    for number in (1, 2, 3):
        node.start(place(start, number, tmp_path).strip())
    node.wait_ready()
    for number in (1, 2, 3):
        assert node.run(f"etcdctl --endpoints 127.0.0.1:{number}2379 get kept --print-value-only") == "before\n"


def place(command: str, number: int, directory: Path) -> str:
    """The command for the member of this number, at ports and in a directory of this test."""
    mine = re.sub(r"(--name |quorate/)m1\b", rf"\g<1>m{number}", command)
    mine = re.sub(r"(-urls )http://10\.0\.0\.1:", rf"\1http://10.0.0.{number}:", mine)
    mine = mine.replace("/var/lib/quorate", str(directory))
    return re.sub(r"10\.0\.0\.(\d):", r"127.0.0.1:\1", mine)
