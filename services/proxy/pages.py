"""What the proxy answers to HTTP/1.1: its health and figures, and those of the cluster behind it."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import urllib.request
from typing import Final

import grpc
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from quorate.client.errors import NoEndpointsError
from quorate.client.methods import RANGE
from quorate.proto import rpc_pb2 as rpc
from quorate.proxy.tallies import Tallies
from quorate.proxy.upstream import Upstream

HEALTH_S: Final = 5.0
METRICS_S: Final = 5.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def application(upstream: Upstream, tallies: Tallies, context: ssl.SSLContext) -> FastAPI:
    """The pages; `context` is for endpoints with TLS."""
    pages = FastAPI(openapi_url=None)

    @pages.get("/health")
    @pages.get("/proxy/health")
    async def health() -> Response:
        return _health(await _reason(upstream))

    @pages.get("/metrics")
    async def metrics() -> Response:
        for endpoint in random.sample(upstream.endpoints, len(upstream.endpoints)):
            try:
                text = await asyncio.to_thread(_fetch, endpoint, context)
            except OSError:
                continue
            return Response(text, media_type=METRICS_TYPE)
        return PlainTextResponse("no endpoint answers\n", 503)

    @pages.get("/proxy/metrics")
    async def own_metrics() -> Response:
        return Response(tallies.render(), media_type=METRICS_TYPE)

    return pages


async def _reason(upstream: Upstream) -> str:
    """Why the cluster is not healthy; empty when a linearizable read is answered, also by a refusal of the user."""
    try:
        await upstream.ask(RANGE.path, rpc.RangeRequest(key=b"a").SerializeToString(), [], HEALTH_S)
    except NoEndpointsError as error:
        return f"GET ERROR:{error.text}"
    except grpc.aio.AioRpcError as error:
        refused = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
        return "" if error.code() in refused else f"GET ERROR:{error.details()}"
    return ""


def _health(reason: str) -> Response:
    body = json.dumps({"health": "false" if reason else "true", "reason": reason}, separators=(",", ":"))
    return Response(body, 503 if reason else 200, media_type="application/json")


def _fetch(endpoint: str, context: ssl.SSLContext) -> bytes:
    url = endpoint if "://" in endpoint else f"http://{endpoint}"
    with urllib.request.urlopen(f"{url}/metrics", timeout=METRICS_S, context=context) as answer:  # noqa: S310 - the operator names it
        text: bytes = answer.read()
        return text
