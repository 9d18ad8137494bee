"""The JSON gateway's unary calls: encoding, errors, metadata, limits."""

import asyncio
import base64
import json

import httpx
import pytest

from quorate.api.asgi import Disconnected
from quorate.api.gateway import Gateway, metadata_of
from quorate.api.routes import PATHS, ROUTES
from quorate.wire import errors
from tests.api.exchange import Exchange, post, request, until
from tests.fakes.calls import FakeCalls

MESSAGE_BYTES_MAX = 10_000


def gateway(calls: FakeCalls) -> Gateway:
    return Gateway(calls, MESSAGE_BYTES_MAX)


def expect_error(answer: httpx.Response, status: int, code: int, message: str) -> None:
    assert (status, {"error": message, "code": code, "message": message}) == (answer.status_code, answer.json())
    assert answer.headers["content-type"] == "application/json"


def test_a_put_is_answered_as_etcd_answers_it() -> None:
    answer = post(gateway(FakeCalls()), "/v3/kv/put", content=b'{"key":"Zm9v","value":"YmFy"}')
    assert answer.status_code == 200
    assert answer.text == (
        '{"header":{"cluster_id":"14841639068965178418","member_id":"10276657743932975437",'
        '"revision":"2","raft_term":"2"}}'
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["grpc-metadata-content-type"] == "application/grpc"


def test_a_put_key_is_found_by_range() -> None:
    calls = FakeCalls()
    post(gateway(calls), "/v3/kv/put", json={"key": "Zm9v", "value": "YmFy"})
    answer = post(gateway(calls), "/v3/kv/range", json={"key": "Zm9v"}).json()
    assert answer["kvs"] == [
        {"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"}
    ]
    assert answer["count"] == "1"


def test_a_txn_carries_oneof_members_by_their_field_names() -> None:
    calls = FakeCalls()
    answer = post(
        gateway(calls),
        "/v3/kv/txn",
        json={
            "compare": [{"target": "MOD", "key": "Zm9v", "mod_revision": "0"}],
            "success": [{"requestPut": {"key": "Zm9v", "value": "YmFy"}}],
        },
    ).json()
    assert answer["succeeded"] is True
    assert "response_put" in answer["responses"][0]


def test_an_empty_body_is_an_empty_request() -> None:
    assert post(gateway(FakeCalls()), "/v3/maintenance/status").json()["dbSize"] == "4096"


@pytest.mark.parametrize("path", sorted(path for path, route in ROUTES.items() if route.is_unary))
def test_every_path_calls_its_method(path: str) -> None:
    calls = FakeCalls()
    post(gateway(calls), path, json={"lease": "1"})
    assert PATHS[path] == calls.seen[0][0]


def test_an_unknown_path_is_not_found() -> None:
    for path in ("/v3/kv/nothing", "/v3/kv/put/", "/v3/"):
        expect_error(post(gateway(FakeCalls()), path), 404, 5, "Not Found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_another_method_than_post_is_not_allowed(method: str) -> None:
    answer = request(gateway(FakeCalls()), method, "/v3/kv/range")
    assert answer.status_code == 501
    if method != "HEAD":
        expect_error(answer, 501, 12, "Method Not Allowed")


def test_a_method_that_is_not_served_is_unimplemented() -> None:
    answer = post(gateway(FakeCalls()), "/v3/lease/grant")
    expect_error(answer, 501, 12, "unknown method LeaseGrant for service etcdserverpb.Lease")


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'{"key":1}',
        b'{"key":"a"}',
        b'{"prev_kv":"true"}',
        b'{"lease":"x"}',
        b"\xff",
        b"[" * 5000,
        b'{"key":' * 900,
    ],
)
def test_a_bad_body_is_an_invalid_argument(body: bytes) -> None:
    answer = post(gateway(FakeCalls()), "/v3/kv/put", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    assert answer.json()["message"].startswith("Failed to decode request: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.EMPTY_KEY, 400),
        (errors.NO_LEADER, 503),
        (errors.NO_SPACE, 429),
        (errors.LEASE_NOT_FOUND, 404),
        (errors.PERMISSION_DENIED, 403),
        (errors.CORRUPT, 500),
        (errors.CONTEXT_CANCELED, 499),
        (errors.LEADER_KEY_MISSING, 500),
    ],
)
def test_an_error_has_the_status_of_its_code(error: errors.EtcdError, status: int) -> None:
    calls = FakeCalls()
    calls.fail["/etcdserverpb.KV/Put"] = error
    expect_error(post(gateway(calls), "/v3/kv/put"), status, error.code, error.text)


def test_an_unauthenticated_call_says_so_in_a_header() -> None:
    calls = FakeCalls()
    calls.fail["/etcdserverpb.KV/Put"] = errors.INVALID_AUTH_TOKEN
    answer = post(gateway(calls), "/v3/kv/put")
    expect_error(answer, 401, 16, "etcdserver: invalid auth token")
    assert answer.headers["www-authenticate"] == "etcdserver: invalid auth token"


def test_headers_become_metadata_and_a_time_limit() -> None:
    calls = FakeCalls()
    headers = {"Authorization": "Bearer abc.7", "Grpc-Metadata-HasLeader": "true", "Grpc-Timeout": "1500m"}
    post(gateway(calls), "/v3/kv/put", headers=headers)
    assert calls.seen == [("/etcdserverpb.KV/Put", {"authorization": "Bearer abc.7", "hasleader": "true"}, 1.5)]


def test_of_headers_that_come_twice_the_first_counts() -> None:
    headers = [(b"authorization", b"a"), (b"grpc-metadata-token", b"b"), (b"authorization", b"c")]
    metadata, _ = metadata_of([*headers, (b"grpc-metadata-token", b"d")])
    assert {"authorization": "a", "token": "b"} == metadata


@pytest.mark.parametrize("timeout", ["", "1", "s", "1s", "-1S", "1.5S", "123456789S"])
def test_a_time_limit_that_is_none_is_an_invalid_argument(timeout: str) -> None:
    answer = post(gateway(FakeCalls()), "/v3/kv/put", headers={"Grpc-Timeout": timeout})
    expect_error(answer, 400, 3, f"invalid grpc-timeout: {timeout}")


def test_a_body_above_the_limit_is_refused_unread() -> None:
    body = b"x" * (2 * MESSAGE_BYTES_MAX + 1)
    answer = post(gateway(FakeCalls()), "/v3/kv/put", content=body)
    expect_error(answer, 429, 8, f"grpc: received message larger than max ({len(body)} vs. {MESSAGE_BYTES_MAX})")
    assert answer.headers["connection"] == "close"


def test_a_body_without_end_is_refused_at_the_limit() -> None:
    async def run() -> None:
        exchange = Exchange(gateway(FakeCalls()), "/v3/kv/put")
        for _ in range(3):
            exchange.send(b"x" * MESSAGE_BYTES_MAX)
        assert (await exchange.next())["status"] == 429
        await exchange.end()

    asyncio.run(run())


def test_a_message_above_the_limit_is_refused() -> None:
    body = json.dumps({"key": "Zm9v", "value": "AAAA" * (MESSAGE_BYTES_MAX // 3)}).encode()
    answer = post(gateway(FakeCalls()), "/v3/kv/put", content=body)
    assert (answer.status_code, answer.json()["code"]) == (429, 8)


def test_a_client_that_goes_before_its_body_ends_calls_nothing() -> None:
    async def run() -> None:
        calls = FakeCalls()
        exchange = Exchange(gateway(calls), "/v3/kv/put")
        exchange.send(b'{"key":')
        exchange.disconnect()
        with pytest.raises(Disconnected):
            await exchange.end()
        assert calls.seen == []

    asyncio.run(run())


def test_a_waiting_lock_is_cancelled_with_its_client() -> None:
    async def run() -> None:
        calls = FakeCalls()
        calls.wait.add("/v3lockpb.Lock/Lock")
        exchange = Exchange(gateway(calls), "/v3/lock/lock")
        exchange.send(b'{"name":"Zm9v"}', more=False)
        await until(lambda: calls.seen)
        exchange.disconnect()
        with pytest.raises(Disconnected):
            await exchange.end()
        assert calls.cancelled == ["/v3lockpb.Lock/Lock"]

    asyncio.run(run())


def test_a_lock_that_fails_is_answered() -> None:
    calls = FakeCalls()
    calls.fail["/v3lockpb.Lock/Lock"] = errors.SESSION_EXPIRED
    expect_error(post(gateway(calls), "/v3/lock/lock"), 500, 2, "mutex: session is expired")


def test_a_large_response_is_whole_although_it_comes_in_pieces() -> None:
    calls = FakeCalls()
    for number in range(300):
        key = base64.b64encode(b"%03d" % number).decode()
        post(gateway(calls), "/v3/kv/put", json={"key": key, "value": "AAAA" * 300})
    answer = post(gateway(calls), "/v3/kv/range", json={"key": "AA==", "range_end": "AA=="})
    assert "content-length" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert [kv["value"] for kv in answer.json()["kvs"]] == ["AAAA" * 300] * 300
