"""Random requests put to the JSON gateways of real etcd and of Quorate: every status and every document is the same.

Seeds are chosen as in `test_same_answers`.
"""

from random import Random
from typing import Any, Final

import httpx
import pytest
from google.protobuf.json_format import MessageToJson

from tests.conformance.beside import SEEDS, TTL_SLACK_S, clear, revision_of
from tests.conformance.requests import Requests
from tests.support.rpc import Caller

REQUESTS: Final = 60
PATHS: Final = {
    "KV/Put": "/v3/kv/put",
    "KV/Range": "/v3/kv/range",
    "KV/DeleteRange": "/v3/kv/deleterange",
    "KV/Txn": "/v3/kv/txn",
    "KV/Compact": "/v3/kv/compaction",
    "Lease/LeaseGrant": "/v3/lease/grant",
    "Lease/LeaseRevoke": "/v3/lease/revoke",
    "Lease/LeaseTimeToLive": "/v3/lease/timetolive",
    "Lease/LeaseLeases": "/v3/lease/leases",
}
OF_CLUSTERS: Final = {"cluster_id": "", "member_id": "", "raft_term": ""}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_document_is_etcds(both: tuple[Caller, Caller], seed: int) -> None:
    rng = Random(seed)
    requests = Requests(rng, revision_of(both[0]))
    for caller in both:
        clear(caller)
    with httpx.Client() as client:
        for _ in range(REQUESTS):
            name, request = requests.next()
            body = MessageToJson(request, preserving_proto_field_name=rng.random() < 0.5)
            theirs, ours = (posted(client, f"http://{caller.endpoint}{PATHS[name]}", body) for caller in both)
            if not (name == "KV/Txn" and theirs[0] != 200 and ours[0] != 200):  # which fault is named first
                assert theirs == ours, f"seed {seed}: {name} {body}"
            requests.revision = revision_of(both[0])
            if name == "KV/Put" and ours[0] == 200:
                requests.put_revisions.append(requests.revision)


def posted(client: httpx.Client, url: str, body: str) -> tuple[int, Any]:
    """Status and document, without what differs between clusters and with time."""
    answer = client.post(url, content=body)
    document = stripped(answer.json())
    if "TTL" in document:
        document["TTL"] = (int(document["TTL"]) + TTL_SLACK_S) // 1000
    for name in ("keys", "leases"):
        document.get(name, []).sort(key=str)
    return answer.status_code, document


def stripped(document: Any) -> Any:
    """Headers inside and out bear no ids."""
    match document:
        case dict():
            header = {name: "" for name in OF_CLUSTERS if name in document}
            return {name: stripped(value) for name, value in document.items()} | header
        case list():
            return [stripped(each) for each in document]
    return document
