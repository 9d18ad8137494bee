"""Clusters for the client library's tests, of each product it has to work with."""

from collections.abc import Iterator

import pytest

from bench import servers
from bench.servers import Cluster
from quorate.client import Client
from tests.support.cluster import product_cluster

PRODUCTS = ("etcd", "quorate")


@pytest.fixture(scope="module", params=PRODUCTS)
def product(request: pytest.FixtureRequest) -> servers.Product:
    try:
        return servers.product(request.param)
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def node(product: servers.Product) -> Iterator[Cluster]:
    """One member that the tests of a module share; each uses keys of its own."""
    with product_cluster(product) as cluster:
        yield cluster


@pytest.fixture
def client(node: Cluster) -> Iterator[Client]:
    with Client(node.endpoints, timeout_s=20) as client:  # a busy disk is no failure of the library
        yield client
