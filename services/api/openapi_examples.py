"""Examples for the API documentation: requests that work on a fresh store in this order of paths, and their answers."""

from typing import Any, Final

_HEADER: Final = {
    "cluster_id": "14841639068965178418",
    "member_id": "10276657743932975437",
    "revision": "2",
    "raft_term": "2",
}
_FOO: Final = {"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"}
_MEMBER: Final = {
    "ID": "10276657743932975437",
    "name": "default",
    "peerURLs": ["http://localhost:2380"],
    "clientURLs": ["http://localhost:2379"],
}
_LEASE: Final = "7587862094921523457"
_LEADER: Final = {"name": "ZWxlY3Rpb24=", "key": "ZWxlY3Rpb24vNjk0ZDg=", "rev": "3", "lease": _LEASE}

REQUESTS: Final[dict[str, Any]] = {
    "/v3/kv/put": {"key": "Zm9v", "value": "YmFy"},
    "/v3/kv/range": {"key": "Zm9v"},
    "/v3/kv/txn": {
        "compare": [{"key": "Zm9v", "target": "VERSION", "result": "GREATER", "version": "0"}],
        "success": [{"request_put": {"key": "Zm9v", "value": "YmF6"}}],
        "failure": [{"request_range": {"key": "Zm9v"}}],
    },
    "/v3/kv/deleterange": {"key": "Zm9v"},
    "/v3/kv/compaction": {"revision": "2"},
    "/v3/watch": {"create_request": {"key": "Zm9v"}},
    "/v3/lease/grant": {"TTL": "60", "ID": "0"},
    "/v3/lease/keepalive": {"ID": _LEASE},
    "/v3/lease/timetolive": {"ID": _LEASE, "keys": True},
    "/v3/kv/lease/timetolive": {"ID": _LEASE, "keys": True},
    "/v3/lease/revoke": {"ID": _LEASE},
    "/v3/kv/lease/revoke": {"ID": _LEASE},
    "/v3/cluster/member/list": {"linearizable": True},
    "/v3/cluster/member/add": {"peerURLs": ["http://10.0.0.2:2380"], "isLearner": True},
    "/v3/cluster/member/update": {"ID": _MEMBER["ID"], "peerURLs": ["http://10.0.0.1:2380"]},
    "/v3/cluster/member/promote": {"ID": _MEMBER["ID"]},
    "/v3/cluster/member/remove": {"ID": _MEMBER["ID"]},
    "/v3/maintenance/alarm": {"action": "GET", "memberID": "0", "alarm": "NONE"},
    "/v3/maintenance/hashkv": {"revision": "0"},
    "/v3/maintenance/transfer-leadership": {"targetID": _MEMBER["ID"]},
    "/v3/maintenance/downgrade": {"action": "VALIDATE", "version": "3.5"},
    "/v3/auth/authenticate": {"name": "root", "password": "secret"},
    "/v3/auth/user/add": {"name": "alice", "password": "secret"},
    "/v3/auth/user/get": {"name": "alice"},
    "/v3/auth/user/delete": {"name": "alice"},
    "/v3/auth/user/changepw": {"name": "alice", "password": "secret2"},
    "/v3/auth/user/grant": {"user": "alice", "role": "reader"},
    "/v3/auth/user/revoke": {"name": "alice", "role": "reader"},
    "/v3/auth/role/add": {"name": "reader"},
    "/v3/auth/role/get": {"role": "reader"},
    "/v3/auth/role/delete": {"role": "reader"},
    "/v3/auth/role/grant": {"name": "reader", "perm": {"permType": "READ", "key": "Zm9v", "range_end": "Zm9w"}},
    "/v3/auth/role/revoke": {"role": "reader", "key": "Zm9v", "range_end": "Zm9w"},
    "/v3/lock/lock": {"name": "bG9jaw==", "lease": "0"},
    "/v3/lock/unlock": {"key": "bG9jay82OTRkODE="},
    "/v3/election/campaign": {"name": "ZWxlY3Rpb24=", "lease": _LEASE, "value": "bWU="},
    "/v3/election/proclaim": {"leader": _LEADER, "value": "c3RpbGwgbWU="},
    "/v3/election/leader": {"name": "ZWxlY3Rpb24="},
    "/v3/election/observe": {"name": "ZWxlY3Rpb24="},
    "/v3/election/resign": {"leader": _LEADER},
}

RESPONSES: Final[dict[str, Any]] = {
    "/v3/kv/put": {"header": _HEADER},
    "/v3/kv/range": {"header": _HEADER, "kvs": [_FOO], "count": "1"},
    "/v3/kv/txn": {
        "header": _HEADER | {"revision": "3"},
        "succeeded": True,
        "responses": [{"response_put": {"header": {"revision": "3"}}}],
    },
    "/v3/kv/deleterange": {"header": _HEADER | {"revision": "4"}, "deleted": "1"},
    "/v3/kv/compaction": {"header": _HEADER},
    "/v3/watch": {"header": _HEADER, "events": [{"kv": _FOO}]},
    "/v3/lease/grant": {"header": _HEADER, "ID": _LEASE, "TTL": "60"},
    "/v3/lease/keepalive": {"header": _HEADER, "ID": _LEASE, "TTL": "60"},
    "/v3/lease/timetolive": {"header": _HEADER, "ID": _LEASE, "TTL": "59", "grantedTTL": "60", "keys": ["Zm9v"]},
    "/v3/kv/lease/timetolive": {"header": _HEADER, "ID": _LEASE, "TTL": "59", "grantedTTL": "60", "keys": ["Zm9v"]},
    "/v3/cluster/member/list": {"header": _HEADER, "members": [_MEMBER]},
    "/v3/auth/authenticate": {"header": _HEADER, "token": "sssvIpwfnLAcWAQH.9"},
}
