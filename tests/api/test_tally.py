"""Requests are counted by the version their clients name, and clients cannot make names without end."""

from quorate.api.calls import Context
from quorate.api.metrics import Metrics
from quorate.api.tally import REQUESTS, UNKNOWN, VERSIONS_MAX, RequestsByVersion


def test_calls_with_the_same_version_are_counted_together() -> None:
    requests = RequestsByVersion()
    assert requests.of("3.6") is requests.of("3.6")
    assert requests.of("") is requests.of(UNKNOWN)


def test_versions_beyond_the_bound_are_unknown() -> None:
    requests = RequestsByVersion()
    for number in range(VERSIONS_MAX):
        requests.of(str(number))
    assert requests.of("one more") is requests.of("")
    assert requests.of("one more") is not requests.of("0")


def test_a_context_knows_where_its_calls_are_counted() -> None:
    assert Context({"client-api-version": "3.5"}).requests is REQUESTS.of("3.5")
    assert Context({"client-api-version": "\udcff"}).requests is REQUESTS.of("")


def test_requests_are_shown_with_type_and_version() -> None:
    metrics = Metrics()
    metrics.count_client_requests("unary", "3.6", 2)
    metrics.count_client_requests("stream", "3.6", 0)
    shown = [line for line in metrics.text().splitlines() if line.startswith("etcd_server_client_requests_total")]
    assert shown == ['etcd_server_client_requests_total{client_api_version="3.6",type="unary"} 2.0']
