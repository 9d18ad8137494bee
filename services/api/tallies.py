"""Counts of calls as plain numbers, cheap enough for every call; put into the metrics when somebody looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quorate.api.grpc_connection import GrpcServer
from quorate.api.tally import REQUESTS, Tally

if TYPE_CHECKING:
    from quorate.api.metrics import Metrics


class Publisher:
    """Moves what was counted since the last time into the counters of `metrics`."""

    def __init__(self, metrics: Metrics, tallies: Mapping[str, Tally], server: GrpcServer) -> None:
        self._metrics = metrics
        self._tallies = tallies
        self._server = server

    def publish(self) -> None:
        for method, tally in self._tallies.items():
            counters = self._metrics.methods.get(method)
            if counters is None:
                continue
            counters.started.inc(tally.started)
            is_unary = method.encode() in self._server.unary
            counters.received.inc(tally.started if is_unary else tally.received)
            counters.sent.inc(tally.ok if is_unary else tally.sent)
            counters.handled_ok.inc(tally.ok)
            for code, times in tally.failed.items():
                for _ in range(times):
                    counters.handled(code)
            tally.clear()
        for version, requests in REQUESTS.found.items():
            self._metrics.count_client_requests("unary", version, requests.unary)
            self._metrics.count_client_requests("stream", version, requests.streams)
            requests.unary = requests.streams = 0
        server = self._server
        self._metrics.received_bytes.inc(server.received_bytes)
        self._metrics.sent_bytes.inc(server.sent_bytes)
        server.received_bytes = server.sent_bytes = 0
