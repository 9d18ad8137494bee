"""Measuring calls: every end counts once, refusals and streams included; slow ones are told, with nothing they say."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from quorate.api import timing
from quorate.api.calls import NO_CONTEXT, Calls, Route, StreamRoute
from tests.support.cluster import quorate_cluster

PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"


def answering(code: int) -> Route:
    def start(body: bytes, context: object, done: Any, expires_at: float | None) -> None:
        done(code, "", b"answer")

    return Route(start, serves_learner=True)


def calls(code: int = 0) -> Calls:
    stream = StreamRoute(lambda _context, _responses, done: done)  # type: ignore[arg-type,return-value]
    return cast(Calls, SimpleNamespace(routes={PUT: answering(code)}, streams={WATCH: stream}))


def count(registry: CollectorRegistry, kind: str, service: str, method: str) -> float | None:
    labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
    return registry.get_sample_value("grpc_server_handling_seconds_count", labels)


@pytest.mark.parametrize("code", [0, 3])
def test_each_end_of_a_call_is_counted_and_passed_on(code: int) -> None:
    made, registry = calls(code), CollectorRegistry()
    timing.add_histograms(made, registry)
    ends: list[tuple[int, str, bytes]] = []
    made.routes[PUT].start(b"", NO_CONTEXT, lambda *end: ends.append(end), None)
    assert ends == [(code, "", b"answer")]
    assert count(registry, "unary", "etcdserverpb.KV", "Put") == 1
    assert made.routes[PUT].serves_learner


def test_a_stream_is_counted_when_it_ends() -> None:
    made, registry = calls(), CollectorRegistry()
    timing.add_histograms(made, registry)
    done = cast(Any, made.streams[WATCH].open(NO_CONTEXT, cast(Any, None), lambda *_: None))
    assert count(registry, "bidi_stream", "etcdserverpb.Watch", "Watch") == 0
    done(0, "")
    assert count(registry, "bidi_stream", "etcdserverpb.Watch", "Watch") == 1


def test_only_calls_above_the_limit_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for limit_s, told in ((3600.0, 0), (0.0, 1)):
        made = calls()
        timing.warn_of_slow(made, limit_s)
        made.routes[PUT].start(b"secret", NO_CONTEXT, lambda *_: None, None)
        assert len(caplog.records) == told
    assert cast(Any, caplog.records[0]).fields["response size"] == len(b"answer")
    assert "secret" not in str(vars(caplog.records[0]))


def test_a_node_has_the_histograms_and_lines_it_was_asked_for() -> None:
    flags = ["--metrics", "extensive", "--warning-unary-request-duration", "1ns"]
    with quorate_cluster(1, *flags) as cluster:
        (node,) = cluster.nodes
        labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
        assert node.metric(f"grpc_server_handling_seconds_count{{{labels}}}") >= 1
        assert '"msg":"request stats"' in node.log_path.read_text()
