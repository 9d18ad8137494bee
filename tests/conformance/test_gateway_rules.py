"""Where etcd 3.6's JSON gateway differs from the 3.5 that the transcripts were recorded from.

3.6 moved to grpc-gateway v2 and protojson: unknown fields are ignored, base64 may be URL-safe, two members of one
oneof are refused, routing errors are gRPC statuses.
"""

import http.client
import json
from typing import Any

import pytest

from bench import servers


def ask(node: servers.Node, method: str, path: str, body: str = "") -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=20)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def post(node: servers.Node, path: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, _, body = ask(node, "POST", path, json.dumps(request))
    answer: dict[str, Any] = json.loads(body)
    return status, answer


def test_unknown_fields_are_ignored(quorate_node: servers.Node) -> None:
    request = {"key": "dW5rbm93bg==", "value": "MQ==", "colour": "red", "nested": {"a": [1]}}
    assert post(quorate_node, "/v3/kv/put", request)[0] == 200


@pytest.mark.parametrize("value", ["+/+/", "-_-_", "+w==", "+w", "-w"])
def test_base64_may_be_url_safe_and_unpadded(quorate_node: servers.Node, value: str) -> None:
    assert post(quorate_node, "/v3/kv/put", {"key": "YjY0", "value": value})[0] == 200
    stored = post(quorate_node, "/v3/kv/range", {"key": "YjY0"})[1]["kvs"][0]["value"]
    assert stored in ("+/+/", "+w==")


@pytest.mark.parametrize(
    "request_",
    [
        {"compare": [{"target": "VALUE", "key": "Zm9v", "value": "eA==", "version": "1"}]},
        {"success": [{"request_put": {"key": "Zm9v"}, "request_range": {"key": "Zm9v"}}]},
    ],
)
def test_two_members_of_a_oneof_are_refused(quorate_node: servers.Node, request_: dict[str, Any]) -> None:
    status, answer = post(quorate_node, "/v3/kv/txn", request_)
    assert (status, answer["code"]) == (400, 3)


def test_unknown_path_is_not_found(quorate_node: servers.Node) -> None:
    status, answer = post(quorate_node, "/v3/kv/nothing", {})
    assert (status, answer["code"], answer["message"]) == (404, 5, "Not Found")


def test_wrong_method_is_not_implemented(quorate_node: servers.Node) -> None:
    status, _, body = ask(quorate_node, "GET", "/v3/kv/range")
    answer = json.loads(body)
    assert (status, answer["code"], answer["message"]) == (501, 12, "Method Not Allowed")


def test_errors_can_be_read_by_clients_of_every_release(quorate_node: servers.Node) -> None:
    text = "etcdserver: key is not provided"
    assert post(quorate_node, "/v3/kv/range", {}) == (400, {"error": text, "code": 3, "message": text})


def test_answers_say_they_came_through_grpc(quorate_node: servers.Node) -> None:
    _, headers, _ = ask(quorate_node, "POST", "/v3/kv/range", '{"key":"eA=="}')
    assert headers["Content-Type"] == "application/json"
    assert headers["Grpc-Metadata-Content-Type"] == "application/grpc"


def test_hash_at_the_compact_revision_is_answered(quorate_node: servers.Node) -> None:
    revision = ""
    for value in ("MQ==", "Mg=="):
        revision = post(quorate_node, "/v3/kv/put", {"key": "aGFzaA==", "value": value})[1]["header"]["revision"]
    assert post(quorate_node, "/v3/kv/compaction", {"revision": revision, "physical": True})[0] == 200
    status, answer = post(quorate_node, "/v3/maintenance/hashkv", {"revision": revision})
    assert (status, answer["compact_revision"], answer["hash_revision"]) == (200, revision, revision)
