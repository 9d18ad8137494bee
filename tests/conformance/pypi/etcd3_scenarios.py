"""What PyPI's etcd3 (python-etcd3) sees of a node: `python etcd3_scenarios.py SCENARIO HOST:PORT` prints JSON.

TLS_CA, TLS_CERT and TLS_KEY in the environment name the files for TLS, ETCD_USER and ETCD_PASSWORD say who calls.
"""

import json
import os
import sys
from typing import Any

import etcd3
import grpc

TTL_S = 20


def kv(client: etcd3.Etcd3Client) -> Any:
    client.delete_prefix("a/")
    client.put("a/1", "one")
    client.put("a/2", "two")
    found = [value.decode() for value, _ in client.get_prefix("a/", sort_order="descend")]
    succeeded, _ = client.transaction(
        compare=[client.transactions.value("a/1") == "one"],
        success=[client.transactions.put("a/3", "three"), client.transactions.delete("a/1")],
        failure=[client.transactions.get("a/1")],
    )
    again = client.replace("a/1", "one", "uno")
    return [found, succeeded, again, [meta.key.decode() for _, meta in client.get_prefix("a/")]]


def watch(client: etcd3.Etcd3Client) -> Any:
    revision = client.put("w/1", "before").header.revision
    events, cancel = client.watch_prefix("w/", start_revision=revision, prev_kv=True)
    client.put("w/1", "after")
    client.delete("w/1")
    client.put("w/last", "")
    seen = []
    for event in events:
        kind = type(event).__name__.removesuffix("Event").upper()
        seen.append([kind, event.key.decode(), event.value.decode(), event.prev_value.decode()])
        if event.key == b"w/last":
            cancel()
    return seen


def lease(client: etcd3.Etcd3Client) -> Any:
    granted = client.lease(TTL_S)
    client.put("l/1", "v", lease=granted)
    keys = [key.decode() for key in granted.keys]
    renewed = granted.refresh()[0].TTL
    left = granted.remaining_ttl
    granted.revoke()
    return [keys, renewed, TTL_S - 5 <= left <= TTL_S, client.get("l/1")[0]]


def lock(client: etcd3.Etcd3Client) -> Any:
    """One after the other: its wait for a lock that is taken fails in today's tenacity, whatever the server."""
    first, second = client.lock("lock", ttl=TTL_S), client.lock("lock", ttl=TTL_S)
    got = [first.acquire(), second.is_acquired(), first.refresh()[0].TTL == TTL_S]
    first.release()
    got += [second.acquire(), first.is_acquired(), second.is_acquired()]
    second.release()
    return [*got, client.get("/locks/lock")[0]]


def members(client: etcd3.Etcd3Client) -> Any:
    status = client.status()
    return [status.version.split(".")[0], len(list(client.members)), status.leader is not None]


def refused(client: etcd3.Etcd3Client) -> Any:
    """What this library makes of keys that the caller may not touch."""
    outcomes = []
    for call in (lambda: client.put("z", "v"), lambda: client.get("z"), lambda: list(client.get_prefix("z/"))):
        try:
            outcomes.append(repr(call()))
        except grpc.RpcError as failure:
            outcomes.append(failure.details())
    return outcomes


def beside_etcdctl(client: etcd3.Etcd3Client) -> Any:
    """Hold a lock of the name that etcdctl holds: the key layouts differ, so each sees both."""
    with client.lock("mixed", ttl=TTL_S) as held:
        print(json.dumps(held.is_acquired()), flush=True)
        sys.stdin.readline()
        return sorted(meta.key.decode().rpartition("/")[0] for _, meta in client.get_prefix("/locks/mixed"))


def main(scenario: str, endpoint: str) -> None:
    host, _, port = endpoint.rpartition(":")
    files = {"ca_cert": "TLS_CA", "cert_cert": "TLS_CERT", "cert_key": "TLS_KEY"}
    tls = {name: os.environ.get(variable) for name, variable in files.items()}
    names = {"user": os.environ.get("ETCD_USER"), "password": os.environ.get("ETCD_PASSWORD")}
    client = etcd3.client(host=host, port=int(port), timeout=30, **tls, **names)
    print(json.dumps(globals()[scenario](client)), flush=True)
    client.close()


main(*sys.argv[1:])
