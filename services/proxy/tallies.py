"""What the proxy itself counts: calls begun and ended, by method, under the names gRPC servers use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, PlatformCollector, ProcessCollector, generate_latest

from quorate.wire.errors import Code


@dataclass(slots=True)
class Outcome:
    """How a call ended."""

    code: Code = Code.OK


class Tallies:
    """Counters of one process, and the registry they are in."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ["grpc_service", "grpc_method"]
        self._started = Counter("grpc_server_started", "Calls begun.", labels, registry=self.registry)
        self._handled = Counter("grpc_server_handled", "Calls ended.", [*labels, "grpc_code"], registry=self.registry)

    @contextmanager
    def call(self, path: str) -> Iterator[Outcome]:
        """Count a call for as long as the block lasts; without another outcome an exception is a cancellation."""
        service, _, method = path.strip("/").partition("/")
        self._started.labels(service, method).inc()
        outcome = Outcome()
        try:
            yield outcome
        except BaseException:
            if outcome.code is Code.OK:
                outcome.code = Code.CANCELLED
            raise
        finally:
            self._handled.labels(service, method, outcome.code.go_name).inc()

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
