"""Plays a session of HTTP requests against the JSON gateway and normalises what comes back.

# text                            a heading that goes into the transcript
POST /v3/kv/put {"key":"Zm9v"}    one request with its own connection
3 POST /v3/watch {...}            the same, but read that many messages of a stream and hang up
[NAME] POST /v3/kv/put {...}      the same with the token that was kept as NAME
@ NAME field                      keep a field of the last answer
"""

import http.client
import json
import re
from dataclasses import dataclass, field
from typing import Final

from bench import messages, servers
from tests.conformance import normalise
from tests.conformance.sessions import HERE

TIMEOUT_S: Final = 30.0
VOLATILE: Final = frozenset(
    ("raft_term", "raftIndex", "raftTerm", "raftAppliedIndex", "dbSize", "dbSizeInUse", "token")
)
REQUEST: Final = re.compile(
    r"(?:\[(?P<token>\w+)\] )?(?:(?P<count>\d+) )?(?P<method>[A-Z]+) (?P<path>\S+) ?(?P<body>.*)"
)
SERVER_TEXTS: Final = ("etcdserver: ", "mvcc: ", "auth: ", "election: ", "mutex: ", '"leader"')


@dataclass(slots=True)
class Gateway:
    """One run of a session against one node."""

    node: servers.Node
    names: normalise.Names
    kept: dict[str, str] = field(default_factory=dict)
    last: dict[str, object] = field(default_factory=dict)

    def step(self, line: str) -> str:
        """Do what a line says; what the transcript says of it."""
        if line.startswith("#"):
            return f"\n{line}\n"
        if line.startswith("@"):
            _, name, wanted = line.split()
            self.kept[name] = str(self.last[wanted])
            return ""
        request = REQUEST.fullmatch(line)
        assert request is not None, line
        status, kind, bodies = self._ask(request)
        shown = [self._shown(request["path"], status, body) for body in bodies]
        return "\n".join((line, f"{status} {kind}", *shown)) + "\n"

    def _ask(self, request: re.Match[str]) -> tuple[int, str, list[str]]:
        headers = {"Content-Type": "application/json"}
        if request["token"]:
            headers["Authorization"] = self.kept[request["token"]]
        connection = http.client.HTTPConnection(servers.HOST, self.node.client_port, timeout=TIMEOUT_S)
        try:
            connection.request(request["method"], request["path"], request["body"] or None, headers)
            response = connection.getresponse()
            if request["count"]:
                bodies = [response.readline().decode() for _ in range(int(request["count"]))]
            else:
                bodies = [response.read().decode()]
            return response.status, response.headers.get_content_type(), bodies
        finally:
            connection.close()

    def _shown(self, path: str, status: int, body: str) -> str:
        try:
            parsed = json.loads(body)
        except ValueError:
            return self.names.replace(body.rstrip())
        self.last = parsed
        if status >= 400 and path.startswith("/v3"):
            return _error(parsed)
        if path == "/version":  # fields of the server's own may stand beside etcd's two
            parsed = {name: "<version>" for name in ("etcdserver", "etcdcluster") if name in parsed}
        return self.names.replace(json.dumps(_stable(parsed), sort_keys=True))


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
        gateway = Gateway(node, names)
        return "".join(gateway.step(line) for line in lines if line)


def _error(parsed: dict[str, object]) -> str:
    """Code and text. The `error` field of etcd up to 3.5 is the same text again and gone since 3.6."""
    text = str(parsed["message"])
    if not text.startswith(SERVER_TEXTS):
        text = "<what the JSON parser found>"  # each release's library words it differently
    return json.dumps({"code": parsed["code"], "message": text})


def _stable(value: object) -> object:
    match value:
        case dict():
            if "grantedTTL" in value:
                value = value | {"TTL": "<volatile>"}  # what remains of it
            return {name: "<volatile>" if name in VOLATILE else _stable(inner) for name, inner in value.items()}
        case list():
            return [_stable(inner) for inner in value]
        case _:
            return value
