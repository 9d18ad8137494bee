"""Several api workers behind one client port look like one."""

import json
import urllib.request

from bench.servers import Node
from tests.support.cluster import quorate_cluster, wait_until

WORKERS = 3
PUTS = 24  # each on a connection of its own, which the kernel gives to one of the workers


def test_a_scrape_shows_what_all_workers_have_counted() -> None:
    with quorate_cluster(1, f"--api-workers={WORKERS}") as cluster:
        node = cluster.nodes[0]
        before = counted(node)  # the fixture has put a key
        for number in range(PUTS):
            asked(node, "/v3/kv/put", json.dumps({"key": "aw==", "value": "", "lease": "0"}).encode())
            assert counted(node) == before + number + 1


def counted(node: Node) -> int:
    """By all workers: a page goes without one that is just being started or answers late, and says so."""
    page = ""

    def is_whole() -> bool:
        nonlocal page
        page = asked(node, "/metrics")
        return sample(page, "quorate_api_workers") == WORKERS

    wait_until(is_whole, "a page has the figures of all workers")
    return sample(
        page,
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}',
    )


def sample(page: str, name: str) -> int:
    return sum(int(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(f"{name} "))


def asked(node: Node, path: str, body: bytes | None = None) -> str:
    with urllib.request.urlopen(f"http://{node.endpoint}{path}", body, timeout=10) as answer:
        return str(answer.read().decode())
