"""How long calls take: histograms with --metrics extensive, log lines of slow ones with a limit of the operator's.

Either is put around the methods when it is wanted, so that a call that nobody measures pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from prometheus_client import Histogram
from prometheus_client.registry import CollectorRegistry

from quorate.api.calling import CallStream, Cancel, Done
from quorate.api.calls import Calls, Context, OpenStream, Responses, StreamDone, Unary
from quorate.api.metrics import GRPC_LABELS, grpc_types
from quorate.node import logs

log = logs.named("timing")

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # those of etcd's library

Observe = Callable[[float], None]


def add_histograms(calls: Calls, registry: CollectorRegistry) -> None:
    """Have every call from now on counted by its duration, a stream by its life."""
    histogram = Histogram(
        "grpc_server_handling_seconds", "Duration of calls.", GRPC_LABELS, buckets=BUCKETS_S, registry=registry
    )
    kinds = grpc_types()
    for method in (*calls.routes, *calls.streams):
        service, _, name = method.removeprefix("/").partition("/")
        observe = histogram.labels(kinds.get(method, "unary"), service, name).observe
        if method in calls.routes:
            route = calls.routes[method]
            calls.routes[method] = route._replace(start=_timed(route.start, _alone(observe)))
        else:
            stream = calls.streams[method]
            calls.streams[method] = stream._replace(open=_timed_stream(stream.open, observe))


def warn_of_slow(calls: Calls, limit_s: float) -> None:
    """Have every unary call that takes longer written to the log; of what it says only the size."""
    for method, route in calls.routes.items():
        calls.routes[method] = route._replace(start=_timed(route.start, _warner(method, limit_s)))


Ended = Callable[[float, int, int], None]  # seconds, octets of the request, of the answer


def _alone(observe: Observe) -> Ended:
    return lambda seconds, _request, _answer: observe(seconds)


def _warner(method: str, limit_s: float) -> Ended:
    def ended(seconds: float, request_bytes: int, answer_bytes: int) -> None:
        if seconds > limit_s:
            sizes = {"request size": request_bytes, "response size": answer_bytes}
            log.warn("request stats", **{"response type": method, "time spent": f"{seconds:.6f}s", **sizes})

    return ended


def _timed(start: Unary, ended: Ended) -> Unary:
    def timed(body: bytes, context: Context, done: Done, expires_at: float | None) -> Cancel | None:
        began = perf_counter()

        def over(code: int, message: str, response: bytes) -> None:
            ended(perf_counter() - began, len(body), len(response))
            done(code, message, response)

        return start(body, context, over, expires_at)

    return timed


def _timed_stream(open_stream: OpenStream, observe: Observe) -> OpenStream:
    def timed(context: Context, responses: Responses, done: StreamDone) -> CallStream:
        began = perf_counter()

        def over(code: int, message: str) -> None:
            observe(perf_counter() - began)
            done(code, message)

        return open_stream(context, responses, over)

    return timed
