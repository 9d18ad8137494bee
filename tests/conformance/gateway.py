"""Plays a session of HTTP requests against the JSON gateway and normalises what comes back.

A line is `METHOD PATH [BODY]`; `#` begins a heading that goes into the transcript.
"""

import http.client
import json
from typing import Final

from bench import messages, servers
from tests.conformance import normalise
from tests.conformance.sessions import HERE

TIMEOUT_S: Final = 30.0
VOLATILE: Final = frozenset(("raft_term", "raftIndex", "raftTerm", "raftAppliedIndex", "dbSize", "dbSizeInUse"))


def play(name: str, product: servers.Product) -> str:
    """Start one node, send every request of the session, end it; the transcript."""
    lines = (HERE / f"{name}.http").read_text().splitlines()
    with servers.cluster(product, 1) as cluster:
        node = cluster.nodes[0]
        node.start()
        node.wait_answer(messages.KV_RANGE, messages.range_(b"a"))
        answer = node.call(messages.STATUS, b"")
        header = next(v for f, v in messages.fields(answer) if f == 1 and isinstance(v, bytes))
        names = normalise.Names(
            {messages.first_number(header, 1): "<cluster>", messages.first_number(header, 2): "<member1>"},
            {node.endpoint: "<client1>", f"{servers.HOST}:{node.peer_port}": "<peer1>"},
        )
        return "".join(_step(node, line, names) for line in lines if line)


def _step(node: servers.Node, line: str, names: normalise.Names) -> str:
    if line.startswith("#"):
        return f"\n{line}\n"
    method, path, *rest = line.split(" ", 2)
    connection = http.client.HTTPConnection(servers.HOST, node.client_port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, rest[0] if rest else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    kind = response.headers.get_content_type()
    return f"{line}\n{response.status} {kind}\n{_body(path, response.status, body, names)}\n"


def _body(path: str, status: int, body: str, names: normalise.Names) -> str:
    try:
        parsed = json.loads(body)
    except ValueError:
        return names.replace(body.rstrip())
    if status >= 400 and path.startswith("/v3"):
        return _error(parsed)
    if path == "/version":  # fields of the server's own may stand beside etcd's two
        parsed = {name: "<version>" for name in ("etcdserver", "etcdcluster") if name in parsed}
    return names.replace(json.dumps(_stable(parsed), sort_keys=True))


def _error(parsed: dict[str, object]) -> str:
    """Code and text. The `error` field of etcd up to 3.5 is the same text again and gone since 3.6."""
    text = str(parsed["message"])
    if not text.startswith(("etcdserver: ", "mvcc: ")):
        text = "<what the JSON parser found>"  # each release's library words it differently
    return json.dumps({"code": parsed["code"], "message": text})


def _stable(value: object) -> object:
    match value:
        case dict():
            return {name: "<volatile>" if name in VOLATILE else _stable(inner) for name, inner in value.items()}
        case list():
            return [_stable(inner) for inner in value]
        case _:
            return value
