"""Spans of unary calls for an OpenTelemetry collector: --enable-distributed-tracing and the flags beside it.

The library is imported only when it is wanted, and put around the methods then. A call is traced when its caller traces
it (the `traceparent` header), or by chance at the rate of the flags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from quorate.api.calling import Cancel, Done
from quorate.api.calls import Calls, Context, Unary
from quorate.node.config import Config

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PER_MILLION: Final = 1_000_000
CARRIED: Final = ("traceparent", "tracestate", "baggage")


def make_provider(config: Config) -> TracerProvider:
    """What sends spans to the collector, in a thread of its own; `shutdown` sends the last ones."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    named = {"service.name": config.distributed_tracing_service_name}
    if config.distributed_tracing_instance_id:
        named["service.instance.id"] = config.distributed_tracing_instance_id
    rate = min(config.distributed_tracing_sampling_rate / PER_MILLION, 1.0)
    provider = TracerProvider(ParentBased(TraceIdRatioBased(rate)), Resource.create(named), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=config.distributed_tracing_address, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def trace(calls: Calls, config: Config) -> Callable[[], None]:
    """Have every unary call traced from now on; the result sends what is left when the process ends."""
    provider = make_provider(config)
    tracer = provider.get_tracer("quorate")
    for method, route in calls.routes.items():
        calls.routes[method] = route._replace(start=_traced(method.removeprefix("/"), route.start, tracer))
    return provider.shutdown


def _traced(name: str, start: Unary, tracer: Any) -> Unary:
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    service, _, method = name.partition("/")
    facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    extract = TraceContextTextMapPropagator().extract

    def traced(body: bytes, context: Context, done: Done, expires_at: float | None) -> Cancel | None:
        carried = {key: context.metadata[key] for key in CARRIED if key in context.metadata}
        span = tracer.start_span(name, extract(carried) if carried else None, SpanKind.SERVER, facts)
        if not span.is_recording():
            return start(body, context, done, expires_at)

        def over(code: int, message: str, response: bytes) -> None:
            span.set_attribute("rpc.grpc.status_code", code)
            if code:
                span.set_status(Status(StatusCode.ERROR, message))
            span.end()
            done(code, message, response)

        try:
            return start(body, context, over, expires_at)
        except BaseException:  # refused at once; who called answers it
            span.set_status(Status(StatusCode.ERROR))
            span.end()
            raise

    return traced
