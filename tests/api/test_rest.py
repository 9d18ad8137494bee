"""/v1: text in, text out, conditions and pages."""

import pytest

from quorate.wire import errors
from tests.api.conftest import VALUE_BYTES_MAX, Pages

GREETING = "/v1/keys/greeting"


def test_a_key_is_stored_and_read_as_text(pages: Pages) -> None:
    stored = pages.request("PUT", GREETING, content="hello")
    assert (201, {"key": "greeting", "mod_revision": 2, "created": True}) == (stored.status_code, stored.json())
    answer = pages.get(GREETING)
    assert answer.json() == {
        "key": "greeting",
        "value": "hello",
        "create_revision": 2,
        "mod_revision": 2,
        "version": 1,
        "encoding": "text",
    }
    assert answer.headers["etag"] == stored.headers["etag"] == '"2"'


def test_a_second_put_is_no_creation(pages: Pages) -> None:
    pages.request("PUT", GREETING, content="hello")
    answer = pages.request("PUT", GREETING, content="hi")
    assert (200, False) == (answer.status_code, answer.json()["created"])


def test_a_value_can_be_read_as_its_bytes(pages: Pages) -> None:
    pages.request("PUT", GREETING, content=b"\x00\xff")
    answer = pages.get(GREETING + "?raw=true")
    assert (b"\x00\xff", "application/octet-stream") == (answer.content, answer.headers["content-type"])


def test_what_is_no_text_is_base64(pages: Pages) -> None:
    pages.request("PUT", GREETING, content=b"\x00\xff")
    answer = pages.get(GREETING).json()
    assert ("Z3JlZXRpbmc=", "AP8=", "base64") == (answer["key"], answer["value"], answer["encoding"])


@pytest.mark.parametrize(
    ("path", "key"), [("a/b/c", b"a/b/c"), ("a%2Fb", b"a/b"), ("%FF%00", b"\xff\x00"), ("%C3%A9", "é".encode())]
)
def test_a_key_is_the_rest_of_the_path_to_the_byte(pages: Pages, path: str, key: bytes) -> None:
    pages.request("PUT", f"/v1/keys/{path}", content="x")
    assert set(pages.calls.keys) == {key}


def test_an_absent_key_is_not_found(pages: Pages) -> None:
    for method in ("GET", "DELETE"):
        answer = pages.request(method, GREETING)
        assert (404, 5, "no key greeting") == (answer.status_code, answer.json()["code"], answer.json()["error"])


def test_a_put_on_condition_of_a_revision(pages: Pages) -> None:
    pages.request("PUT", GREETING, content="hello")
    assert pages.request("PUT", GREETING, content="hi", headers={"If-Match": '"2"'}).status_code == 200
    late = pages.request("PUT", GREETING, content="hey", headers={"If-Match": '"2"'})
    assert (412, 9) == (late.status_code, late.json()["code"])
    assert pages.calls.keys[b"greeting"].value == b"hi"


def test_a_put_only_if_the_key_is_new(pages: Pages) -> None:
    condition = {"If-None-Match": "*"}
    assert pages.request("PUT", GREETING, content="hello", headers=condition).status_code == 201
    assert pages.request("PUT", GREETING, content="hi", headers=condition).status_code == 412


def test_a_put_only_if_the_key_exists(pages: Pages) -> None:
    refused = pages.request("PUT", GREETING, content="hello", headers={"If-Match": "*"})
    assert refused.status_code == 412
    assert refused.json()["message"] == "If-Match asks that the key exists; that does not hold"
    assert pages.calls.keys == {}


@pytest.mark.parametrize("headers", [{"If-Match": "x"}, {"If-Match": "-1"}, {"If-None-Match": '"1"'}])
def test_a_condition_that_is_none_is_a_bad_request(pages: Pages, headers: dict[str, str]) -> None:
    answer = pages.request("PUT", GREETING, content="hello", headers=headers)
    assert (400, 3) == (answer.status_code, answer.json()["code"])


def test_a_delete_on_condition_of_a_revision(pages: Pages) -> None:
    pages.request("PUT", GREETING, content="hello")
    assert pages.request("DELETE", GREETING, headers={"If-Match": '"9"'}).status_code == 412
    answer = pages.request("DELETE", GREETING, headers={"If-Match": '"2"'})
    assert (200, {"deleted": 1, "revision": 3}) == (answer.status_code, answer.json())


def fill(pages: Pages, *keys: str) -> None:
    for key in keys:
        pages.request("PUT", f"/v1/keys/{key}", content=f"value of {key}")


def test_a_list_comes_in_pages_of_one_revision(pages: Pages) -> None:
    fill(pages, "a/1", "a/2", "a/3", "b/1")
    found, cursor = [], ""
    while cursor is not None:
        page = pages.get("/v1/keys", params={"prefix": "a/", "limit": 2, "cursor": cursor}).json()
        found += [pair["key"] for pair in page["keys"]]
        assert page["revision"] == 5
        cursor = page.get("next")
    assert found == ["a/1", "a/2", "a/3"]


def test_a_list_without_prefix_has_every_key(pages: Pages) -> None:
    fill(pages, "b", "a")
    page = pages.get("/v1/keys", params={"keys_only": True}).json()
    assert [pair["key"] for pair in page["keys"]] == ["a", "b"]
    assert "value" not in page["keys"][0]
    assert "next" not in page


def test_a_prefix_can_be_deleted(pages: Pages) -> None:
    fill(pages, "a/1", "a/2", "b/1")
    assert pages.request("DELETE", "/v1/keys?prefix=a/").json()["deleted"] == 2
    assert set(pages.calls.keys) == {b"b/1"}


def test_everything_is_not_deleted_by_forgetting_the_prefix(pages: Pages) -> None:
    fill(pages, "a")
    assert pages.request("DELETE", "/v1/keys").status_code == 400
    assert pages.request("DELETE", "/v1/keys?prefix=").status_code == 400
    assert set(pages.calls.keys) == {b"a"}


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=0", "limit=10001", "revision=-1", "cursor=!", "cursor=Zm9v", "serializable=maybe"]
)
def test_a_bad_parameter_is_a_bad_request_in_the_gateways_form(pages: Pages, query: str) -> None:
    answer = pages.get(f"/v1/keys?{query}")
    assert (400, 3) == (answer.status_code, answer.json()["code"])
    assert answer.json()["error"] == answer.json()["message"]


def test_a_lease_is_hexadecimal(pages: Pages) -> None:
    pages.request("PUT", GREETING + "?lease=694d8", content="x")
    assert pages.get(GREETING).json()["lease"] == "694d8"
    pages.request("PUT", GREETING + "?lease=ffffffffffffffff", content="x")
    assert (-1, "ffffffffffffffff") == (pages.calls.keys[b"greeting"].lease, pages.get(GREETING).json()["lease"])
    assert pages.request("PUT", GREETING + "?lease=xyz", content="x").status_code == 400


def test_a_value_above_the_limit_is_refused(pages: Pages) -> None:
    answer = pages.request("PUT", GREETING, content=b"x" * (VALUE_BYTES_MAX + 1))
    assert (413, 8) == (answer.status_code, answer.json()["code"])


def test_errors_of_the_store_keep_text_code_and_status(pages: Pages) -> None:
    pages.calls.fail["/etcdserverpb.KV/Range"] = errors.INVALID_AUTH_TOKEN
    answer = pages.get(GREETING, headers={"Authorization": "abc.7"})
    assert (401, 16, errors.INVALID_AUTH_TOKEN.text) == (answer.status_code, *list(answer.json().values())[1:])
    assert answer.headers["www-authenticate"] == errors.INVALID_AUTH_TOKEN.text
    assert pages.calls.seen[0][1] == {"authorization": "abc.7"}


def test_another_method_is_not_allowed(pages: Pages) -> None:
    answer = pages.request("POST", GREETING, content="x")
    assert (405, "Method Not Allowed\n") == (answer.status_code, answer.text)
