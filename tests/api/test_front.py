"""What happens to every HTTP request: the old prefix, host whitelist, CORS, OPTIONS, clients that go."""

import asyncio
from typing import Any

import pytest

from quorate.api.asgi import Message, Receive, Scope, Send, respond_text
from quorate.api.front import NAME_IGNORED, Front, MetricsFront
from quorate.api.gateway import Gateway
from tests.api.exchange import post, request
from tests.fakes.calls import FakeCalls

SCOPE = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": []}


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    await respond_text(send, 200, f"page {scope['path']}")


def front(**options: Any) -> Front:
    return Front(Gateway(FakeCalls(), 1000), pages, **options)


def test_v3beta_is_v3() -> None:
    assert post(front(), "/v3beta/kv/put").status_code == 200
    assert post(front(), "/v3alpha/kv/put").text == "page /v3alpha/kv/put"


def test_without_a_gateway_its_paths_are_pages() -> None:
    assert post(Front(None, pages), "/v3/kv/put").text == "page /v3/kv/put"


def test_every_answer_may_be_read_by_every_origin_unless_configured_otherwise() -> None:
    for path in ("/v3/kv/put", "/v3/nothing", "/version"):
        headers = post(front(), path).headers
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "POST, GET, OPTIONS, PUT, DELETE"
        assert headers["access-control-allow-headers"] == "accept, content-type, authorization"


def test_only_a_configured_origin_may_read() -> None:
    door = front(cors=["https://a.example"])
    allowed = post(door, "/v3/kv/put", headers={"Origin": "https://a.example"})
    refused = post(door, "/v3/kv/put", headers={"Origin": "https://b.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in refused.headers


def test_options_is_answered_empty_for_every_path() -> None:
    for path in ("/v3/kv/put", "/nothing"):
        answer = request(front(), "OPTIONS", path)
        assert (200, b"") == (answer.status_code, answer.content)
        assert "access-control-allow-origin" in answer.headers


@pytest.mark.parametrize("base_url", ["http://a.example:2379", "http://a.example", "http://[::1]:2379"])
def test_a_whitelisted_host_is_served(base_url: str) -> None:
    door = front(host_whitelist=["a.example", "::1"])
    assert request(door, "GET", "/x", base_url).text == "page /x"


def test_another_host_is_misdirected_on_plain_http_only() -> None:
    door = front(host_whitelist=["a.example"])
    assert request(door, "GET", "/x", "http://b.example").status_code == 421
    assert request(door, "GET", "/x", "https://b.example").status_code == 200


def test_a_client_that_is_gone_when_the_answer_comes_is_no_fault() -> None:
    async def closed(_: Message) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(front()(dict(SCOPE), gone, closed))


def test_another_error_while_answering_is_not_hidden() -> None:
    async def broken(_: Message) -> None:
        raise RuntimeError("Unexpected ASGI message")

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(RuntimeError, match="Unexpected"):
        asyncio.run(front()(dict(SCOPE), gone, broken))


@pytest.mark.parametrize(
    ("name", "auth", "path", "status"),
    [
        ("alice", True, "/v3/kv/put", 400),
        ("alice", True, "/v3beta/kv/put", 400),
        ("alice", True, "/version", 200),
        ("alice", False, "/v3/kv/put", 200),
        ("", True, "/v3/kv/put", 200),
    ],
)
def test_the_gateway_does_not_act_in_the_name_of_a_certificate(name: str, auth: bool, path: str, status: int) -> None:
    inner = front(auth_enabled=lambda: auth)

    async def with_certificate(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"common_name": name}
        await inner(scope, receive, send)

    answer = post(with_certificate, path)
    assert answer.status_code == status
    assert (NAME_IGNORED in answer.text) == (status == 400)


def test_a_metrics_listener_has_figures_and_health_only() -> None:
    door = MetricsFront(pages)
    for path, status in (("/metrics", 200), ("/health", 200), ("/livez", 200), ("/readyz/x", 200)):
        assert request(door, "GET", path).status_code == status
    for path in ("/v3/kv/put", "/version", "/docs"):
        assert request(door, "GET", path).status_code == 404
