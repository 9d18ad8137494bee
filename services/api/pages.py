"""The pages of the client port: everything that is not the JSON gateway, as one FastAPI application.

The OpenAPI document describes both; what an unknown path and a wrong method get is what Go's net/http says.
"""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from quorate.api import debug, health, openapi, profiles, rest
from quorate.api.asgi import BodyTooLarge
from quorate.api.calling import Calls, Failed
from quorate.api.gateway_answers import error_body
from quorate.api.metrics import Metrics
from quorate.api.metrics import router as metrics_router
from quorate.api.node_view import NodeView
from quorate.api.versions import QUORATE_VERSION
from quorate.api.versions import router as versions_router
from quorate.wire.errors import Code, http_status


def make_pages(
    calls: Calls,
    node: NodeView,
    metrics: Metrics,
    message_bytes_max: int,
    gateway: bool = True,
    with_profiles: bool = False,
) -> FastAPI:
    """The application; without `gateway` its paths are not documented."""
    pages = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        title="Quorate",
        version=QUORATE_VERSION,
        swagger_ui_parameters={"docExpansion": "none", "defaultModelsExpandDepth": 0},
    )
    pages.include_router(rest.router(calls, message_bytes_max))
    pages.include_router(health.router(node, metrics))
    pages.include_router(versions_router(node))
    pages.include_router(metrics_router(node, metrics))
    pages.include_router(debug.router(node))
    if with_profiles:
        pages.include_router(profiles.router())
    pages.add_exception_handler(HTTPException, _as_go_does)
    pages.add_exception_handler(RequestValidationError, _as_the_gateway_does)
    for failure in (Failed, rest.PreconditionFailed, BodyTooLarge):
        pages.add_exception_handler(failure, _as_the_gateway_does)
    document = _Document(pages, gateway)
    pages.openapi = document.read  # type: ignore[method-assign]
    return pages


async def _as_go_does(_: Request, error: Exception) -> Response:
    """`404 page not found`, and other statuses with their phrase."""
    assert isinstance(error, HTTPException)
    text = "404 page not found" if error.status_code == 404 else HTTPStatus(error.status_code).phrase
    headers = {**(error.headers or {}), "X-Content-Type-Options": "nosniff"}
    return PlainTextResponse(f"{text}\n", error.status_code, headers)


async def _as_the_gateway_does(_: Request, error: Exception) -> Response:
    """{"error", "code", "message"} with the HTTP status of the code."""
    match error:
        case Failed():
            code, text, status = error.code, error.message, http_status(error.code)
        case rest.PreconditionFailed():
            code, text, status = Code.FAILED_PRECONDITION, str(error), 412
        case BodyTooLarge():
            code, text, status = Code.RESOURCE_EXHAUSTED, f"value is too large: {error}", 413
        case RequestValidationError():
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][1:]))
            code, text, status = Code.INVALID_ARGUMENT, f"{where}: {first['msg']}", 400
        case _:
            raise error
    headers = {"WWW-Authenticate": text} if code == Code.UNAUTHENTICATED else None
    return Response(error_body(code, text), status, headers, "application/json")


class _Document:
    """The OpenAPI document, made when it is first asked for."""

    def __init__(self, pages: FastAPI, gateway: bool) -> None:
        self._pages = pages
        self._gateway = gateway
        self._made: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> dict[str, Any]:
        pages = self._pages
        document = get_openapi(
            title=pages.title,
            version=pages.version,
            description=openapi.INTRODUCTION if self._gateway else "",
            routes=pages.routes,
            tags=[*(openapi.tags() if self._gateway else []), *TAGS],
        )
        _without_fastapis_words(document)
        for path, item in document["paths"].items():
            for operation in item.values() if path.startswith("/v1/") else ():
                operation["security"] = openapi.SECURITY
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}}
        if self._gateway:
            document["paths"] = {**openapi.paths(), **document["paths"]}
            components["schemas"] = {**components.get("schemas", {}), **openapi.schemas()}
        return document


def _without_fastapis_words(document: dict[str, Any]) -> None:
    """A bad parameter is answered as every other error, so FastAPI's own form of it never is."""
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
            if (good := operation["responses"].get("200", {})).get("description") == "Successful Response":
                good["description"] = "Success."
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


TAGS = [
    {"name": rest.TAG, "description": "Keys as text, for people with curl."},
    {"name": health.TAG, "description": "Health, versions and figures of this member."},
]
