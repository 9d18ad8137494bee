"""Spans of a real node, received by a collector of the test's own."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector

from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import quorate_cluster
from tests.support.rpc import calling

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
WITHIN_S = 30.0


class Collector(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Keeps every span it is sent, with the name of its service."""

    def __init__(self) -> None:
        self.spans: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def service(self, details: Any) -> Any:
        assert details.method == EXPORT
        return grpc.unary_unary_rpc_method_handler(self._take)

    def _take(self, octets: bytes, _context: object) -> bytes:
        for resource in collector.ExportTraceServiceRequest.FromString(octets).resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put((names["service.name"], span))
        return collector.ExportTraceServiceResponse().SerializeToString()

    def wait(self, name: str) -> tuple[str, Any]:
        """The next span with this name."""
        while True:
            service, span = self.spans.get(timeout=WITHIN_S)
            if span.name == name:
                return service, span


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector and its address."""
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2), handlers=(kept,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield kept, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_calls_that_are_traced_by_their_caller_get_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collecting() as (kept, address):
        flags = ["--enable-distributed-tracing", "--distributed-tracing-address", address]
        with quorate_cluster(1, *flags, "--distributed-tracing-service-name", "store") as cluster:
            metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
            with calling(cluster.endpoints[0], metadata) as caller:
                caller.unary("KV/Put", rpc.PutRequest(key=b"a"))
                with pytest.raises(grpc.RpcError):
                    caller.unary("KV/Range", rpc.RangeRequest())
            service, span = kept.wait("etcdserverpb.KV/Put")
            assert (service, span.trace_id.hex(), span.parent_span_id.hex()) == ("store", TRACE, SPAN)
            assert kept.wait("etcdserverpb.KV/Range")[1].status.code == 2


def test_calls_are_traced_by_chance_at_the_rate_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collecting() as (kept, address):
        flags = ["--enable-distributed-tracing", "--distributed-tracing-address", address]
        with quorate_cluster(1, *flags, "--distributed-tracing-sampling-rate", "1000000"):
            assert kept.wait("etcdserverpb.KV/Put")[0] == "etcd"
