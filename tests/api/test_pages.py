"""Versions, figures, documentation, and what an unknown path gets."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from quorate.api.json_codec import Decoder
from quorate.api.metrics import Metrics, merge
from quorate.api.openapi_examples import REQUESTS, RESPONSES
from quorate.api.routes import ROUTES
from tests.api.conftest import Pages


def test_an_unknown_path_is_gos_404(pages: Pages) -> None:
    for path in ("/", "/v2/keys", "/docs/assets/nothing.js", "/debug/pprof/"):
        answer = pages.get(path)
        assert (404, "404 page not found\n") == (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_versions_of_server_and_cluster(pages: Pages) -> None:
    answer = pages.get("/version").json()
    assert answer.pop("quorate")
    assert answer == {"etcdserver": "3.6.14", "etcdcluster": "3.6.0", "storage": "3.6.0"}


def test_a_cluster_without_version_is_not_decided(pages: Pages) -> None:
    pages.node.version = None
    answer = pages.get("/version").json()
    assert ("not_decided", "unknown") == (answer["etcdcluster"], answer["storage"])


def test_debug_vars_show_the_raft_state(pages: Pages) -> None:
    answer = pages.get("/debug/vars").json()
    assert answer["raft.status"]["id"] == "8e9e05c52164694d"
    assert {"cmdline", "memstats", "file_descriptor_limit"} <= answer.keys()


# Figures


def test_grpc_counters_exist_before_the_first_call(pages: Pages) -> None:
    lines = pages.get("/metrics").text.splitlines()
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    assert f"grpc_server_started_total{{{labels}}} 0" in lines
    assert any(line.startswith("grpc_server_handled_total{") and 'grpc_code="Unavailable"' in line for line in lines)
    assert not any("_created" in line for line in lines)


def test_calls_and_health_checks_are_counted(pages: Pages) -> None:
    put = pages.metrics.methods["/etcdserverpb.KV/Put"]
    put.started.inc()
    put.handled(0)
    put.handled(14)
    pages.get("/health")
    pages.get("/livez")
    text = pages.get("/metrics").text
    labels = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    assert f"grpc_server_started_total{{{labels}}} 1" in text
    assert 'grpc_code="OK",' + labels in text
    assert "etcd_server_health_success 1" in text
    assert 'etcd_server_healthchecks_total{name="serializable_read",status="success",type="livez"} 1' in text


def test_figures_of_other_processes_stand_beside(pages: Pages) -> None:
    pages.node.texts = [
        "# HELP etcd_server_has_leader x\n# TYPE etcd_server_has_leader gauge\netcd_server_has_leader 1\n"
    ]
    answer = pages.get("/metrics")
    assert "etcd_server_has_leader 1\n" in answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_equal_samples_are_added_up_and_heads_kept_once() -> None:
    one = "# HELP process_open_fds a\n# TYPE process_open_fds gauge\nprocess_open_fds 3\nprocess_max_fds 9\n"
    two = "# HELP process_open_fds b\n# TYPE process_open_fds gauge\nprocess_open_fds 4.5\nprocess_max_fds 7\n"
    assert merge([one, two]).splitlines() == [
        "# HELP process_open_fds a",
        "# TYPE process_open_fds gauge",
        "process_open_fds 7.5",
        "process_max_fds 9",
    ]


def test_labels_keep_samples_apart_even_with_spaces_in_them() -> None:
    text = '# TYPE a gauge\na{b="x y"} 1\na{b="z"} +Inf\n'
    assert merge([text]) == '# TYPE a gauge\na{b="x y"} 1\na{b="z"} +Inf\n'


def test_what_every_worker_knows_is_not_added_up() -> None:
    text = Metrics().text()
    assert 'etcd_server_version{server_version="3.6.14"} 1\n' in merge([text, text])


def test_two_workers_in_one_process_have_figures_of_their_own() -> None:
    first, second = Metrics(), Metrics()
    first.count_health(healthy=True)
    assert "etcd_server_health_success 1.0" in first.text()
    assert "etcd_server_health_success 0.0" in second.text()


# Documentation


def references(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                if name == "$ref":
                    yield item
                else:
                    yield from references(item)
        case list():
            for item in value:
                yield from references(item)


def test_the_document_has_every_route_with_its_types(pages: Pages) -> None:
    document = pages.get("/openapi.json").json()
    assert set(ROUTES) <= document["paths"].keys()
    assert {"/version", "/health", "/readyz/{check}", "/metrics", "/v1/keys/{key}"} <= document["paths"].keys()
    put = document["components"]["schemas"]["etcdserverpb.PutRequest"]["properties"]
    assert (put["key"]["format"], put["lease"]["type"], put["prev_kv"]["type"]) == ("byte", "string", "boolean")
    order = document["components"]["schemas"]["etcdserverpb.RangeRequest"]["properties"]["sort_order"]
    assert order["enum"] == ["NONE", "ASCEND", "DESCEND"]


def test_the_document_names_every_parameter_of_a_path_and_where_a_token_goes(pages: Pages) -> None:
    for path, item in pages.get("/openapi.json").json()["paths"].items():
        for operation in item.values():
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
            assert ("security" in operation) == path.startswith(("/v1/", "/v3/")), path


def test_every_reference_of_the_document_leads_somewhere(pages: Pages) -> None:
    document = pages.get("/openapi.json").json()
    for reference in references(document):
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert isinstance(target, dict)


def test_everything_in_the_document_has_a_description(pages: Pages) -> None:
    document = pages.get("/openapi.json").json()
    operations = [(path, operation) for path, item in document["paths"].items() for operation in item.values()]
    assert [path for path, operation in operations if not operation.get("summary")] == []
    identities = [operation["operationId"] for _, operation in operations]
    assert len(identities) == len(set(identities))
    undescribed = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, definition in schema.get("properties", {}).items()
        if "description" not in definition and field != "header"
    ]
    assert undescribed == []


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_examples_are_what_they_claim_to_be(path: str) -> None:
    route = ROUTES[path]
    if route.request.fields:
        known = set(route.request.fields_by_name)
        assert set(REQUESTS[path]) <= known, "an unknown field would be ignored"
        Decoder(route.request).message(json.dumps(REQUESTS[path]).encode())
    if path in RESPONSES:
        assert set(RESPONSES[path]) <= set(route.response.fields_by_name)
        Decoder(route.response).message(json.dumps(RESPONSES[path]).encode())


def test_the_docs_page_needs_no_other_host(pages: Pages) -> None:
    page = pages.get("/docs").text
    assert "https://" not in page
    assert "http://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/docs/assets/{asset}" in page
        assert pages.get(f"/docs/assets/{asset}").status_code == 200
