"""/metrics: this worker's counters, and the figures of the node's other processes put beside them.

Every process owns its own names. Where several say the same name with the same labels, as all do with process_* and
the api workers with their counters, the page shows the sum: a dashboard made for etcd sees one node.
"""

import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from google.protobuf.descriptor import MethodDescriptor
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.utils import floatToGoString

from quorate.api.node_view import NodeView
from quorate.node.flags import ETCD_VERSION
from quorate.proto import health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2
from quorate.wire.errors import Code

TAG: Final = "Member"
OLDEST: Final = frozenset({"process_start_time_seconds"})  # the node is as old as its oldest process
LARGEST: Final = frozenset(  # a limit for each process, not one they share; what each knows, not what they counted
    {"process_max_fds", "os_fd_limit", "etcd_server_version", "etcd_server_healthcheck"}
)
BARE_COUNTERS: Final = ("etcd_server_health_success", "etcd_server_health_failures")  # etcd's names without _total

disable_created_metrics()  # type: ignore[no-untyped-call]  # etcd has none, and they double the page

GRPC_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
_PROTOS: Final = (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2)


class MethodCounters:
    """The four counters of one gRPC method; the hot path adds to these."""

    __slots__ = ("_handled", "_labels", "handled_ok", "received", "sent", "started")

    def __init__(self, started: Counter, handled: Counter, received: Counter, sent: Counter, labels: list[str]) -> None:
        self.started = started.labels(*labels)
        self.received = received.labels(*labels)
        self.sent = sent.labels(*labels)
        self.handled_ok = handled.labels(*labels, Code.OK.go_name)
        self._handled = handled
        self._labels = labels

    def handled(self, code: int) -> None:
        """Count one finished call."""
        if code == 0:
            self.handled_ok.inc()
        else:
            self._handled.labels(*self._labels, Code(code).go_name).inc()


class Metrics:
    """The counters of one api worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.before_text: Callable[[], None] = lambda: None  # puts in what is counted elsewhere
        ProcessCollector(registry=self.registry)
        self.methods = self._method_counters()
        self.sent_bytes = self._counter("etcd_network_client_grpc_sent_bytes", "Bytes sent to gRPC clients.")
        self.received_bytes = self._counter("etcd_network_client_grpc_received_bytes", "Bytes received from clients.")
        self._client_requests = self._counter(
            "etcd_server_client_requests", "Requests of clients.", ("type", "client_api_version")
        )
        self._health_success = self._counter("etcd_server_health_success", "Times /health said true.")
        self._health_failures = self._counter("etcd_server_health_failures", "Times /health said false.")
        self._checks = self._counter("etcd_server_healthchecks", "Health checks run.", ("type", "name", "status"))
        self._check = Gauge(
            "etcd_server_healthcheck", "Outcome of the last health check.", ("type", "name"), registry=self.registry
        )
        self._gauge("etcd_server_version", "Version of the etcd API.", "server_version").labels(ETCD_VERSION).set(1)
        Gauge("quorate_api_workers", "Api processes whose counts are in this page.", registry=self.registry).set(1)
        self._fd_used = Gauge("os_fd_used", "Open file descriptors of this process.", registry=self.registry)
        Gauge("os_fd_limit", "Limit of open file descriptors.", registry=self.registry).set(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        )

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, label: str) -> Gauge:
        return Gauge(name, text, (label,), registry=self.registry)

    def _method_counters(self) -> dict[str, MethodCounters]:
        started = self._counter("grpc_server_started", "Calls begun.", GRPC_LABELS)
        handled = self._counter("grpc_server_handled", "Calls finished.", (*GRPC_LABELS, "grpc_code"))
        received = self._counter("grpc_server_msg_received", "Messages received.", GRPC_LABELS)
        sent = self._counter("grpc_server_msg_sent", "Messages sent.", GRPC_LABELS)
        counters = {}
        for file in _PROTOS:
            for service in file.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    labels = [_grpc_type(method), service.full_name, method.name]
                    for code in Code:
                        handled.labels(*labels, code.go_name)
                    counters[f"/{service.full_name}/{method.name}"] = MethodCounters(
                        started, handled, received, sent, labels
                    )
        return counters

    def count_client_requests(self, kind: str, client_api_version: str, times: int) -> None:
        """Count requests by their kind (unary or stream) and the version their clients name."""
        if times:
            self._client_requests.labels(kind, client_api_version).inc(times)

    def count_health(self, healthy: bool) -> None:
        """Count an answer of /health."""
        (self._health_success if healthy else self._health_failures).inc()

    def count_check(self, kind: str, name: str, passed: bool) -> None:
        """Count a check of /livez or /readyz."""
        self._checks.labels(kind, name, "success" if passed else "error").inc()
        self._check.labels(kind, name).set(passed)

    def text(self) -> str:
        """This worker's own figures as Prometheus text."""
        self.before_text()
        self._fd_used.set(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        text = generate_latest(self.registry).decode()
        for name in BARE_COUNTERS:
            text = text.replace(f"{name}_total", name)
        return text


def grpc_types() -> dict[str, str]:
    """The kind of each method, by its path, as gRPC's metrics name it."""
    return {
        f"/{service.full_name}/{method.name}": _grpc_type(method)
        for file in _PROTOS
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def _grpc_type(method: MethodDescriptor) -> str:
    kinds = {
        (False, False): "unary",
        (True, False): "client_stream",
        (False, True): "server_stream",
        (True, True): "bidi_stream",
    }
    return kinds[method.client_streaming, method.server_streaming]


def merge(texts: Iterable[str]) -> str:
    """One Prometheus text of several; equal samples are added up, families keep the head they were given first."""
    families: dict[str, tuple[list[str], dict[str, float]]] = {}
    for text in texts:
        samples: dict[str, float] = {}
        for line in text.splitlines():
            if line.startswith("#"):
                words = line.split(maxsplit=3)
                if len(words) >= 3 and words[1] in ("HELP", "TYPE"):
                    heads, samples = families.setdefault(words[2], ([], {}))
                    if not any(head.startswith(f"# {words[1]} ") for head in heads):
                        heads.append(line)
            elif line:
                name, _, value = line.rpartition(" ")
                samples[name] = _combined(name, samples.get(name), float(value))
    lines = []
    for heads, samples in families.values():
        lines += heads
        lines += [f"{name} {_number(value)}" for name, value in samples.items()]
    return "\n".join(lines) + "\n"


def _combined(name: str, before: float | None, value: float) -> float:
    if before is None:
        return value
    family = name.partition("{")[0]
    if family in OLDEST:
        return min(before, value)
    if family in LARGEST:
        return max(before, value)
    return before + value


def _number(value: float) -> str:
    if value.is_integer():
        return str(int(value))
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def router(node: NodeView, metrics: Metrics) -> APIRouter:
    """The page."""
    pages = APIRouter(tags=[TAG])

    @pages.get(
        "/metrics",
        summary="Figures of this member for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"example": "etcd_server_has_leader 1\n"}}}},
    )
    async def figures() -> Response:
        return Response(merge([metrics.text(), *await node.statistics()]), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return pages
