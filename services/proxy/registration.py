"""The proxies of a cluster find each other by keys below a prefix, each with a lease; clients get them as members."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Final

import grpc

from quorate.client.errors import NoEndpointsError
from quorate.client.methods import LEASE_GRANT, PUT, RANGE
from quorate.client.ranges import prefix_range
from quorate.node import logs
from quorate.proto import rpc_pb2 as rpc
from quorate.proxy.upstream import Upstream

log = logs.named("registration")

ASK_S: Final = 5.0
RETRY_S: Final = 1.0
KEEP_ALIVE_PATH: Final = "/etcdserverpb.Lease/LeaseKeepAlive"


@dataclass(frozen=True, slots=True)
class Registration:
    """Where this proxy says it is (`address`), below which prefix, and for how long after its end."""

    address: str
    prefix: str
    ttl_s: int
    namespace: bytes = b""

    @property
    def key(self) -> bytes:
        return self.namespace + f"{self.prefix}/{self.address}".encode()

    @property
    def value(self) -> bytes:
        """As etcd's naming resolver writes an endpoint."""
        facts = json.dumps({"name": socket.gethostname()}, separators=(",", ":"))
        return json.dumps({"Op": 0, "Addr": self.address, "Metadata": facts}, separators=(",", ":")).encode()


async def stay_registered(upstream: Upstream, registration: Registration) -> None:
    """Have the key in the cluster, for ever."""
    while True:
        try:
            await _register(upstream, registration)
            log.warn("lost the registration; registering again", address=registration.address)
        except (grpc.aio.AioRpcError, NoEndpointsError) as error:
            log.warn("failed to register", address=registration.address, error=str(error))
        await asyncio.sleep(RETRY_S)


async def _register(upstream: Upstream, registration: Registration) -> None:
    """Returns when the lease is gone."""
    grant = rpc.LeaseGrantRequest(TTL=registration.ttl_s).SerializeToString()
    answer = await upstream.ask(LEASE_GRANT.path, grant, [], ASK_S)
    lease = rpc.LeaseGrantResponse.FromString(answer)
    put = rpc.PutRequest(key=registration.key, value=registration.value, lease=lease.ID)
    await upstream.ask(PUT.path, put.SerializeToString(), [], ASK_S)
    log.info("registered", key=registration.key.decode(errors="replace"), ttl=registration.ttl_s)
    renewal = rpc.LeaseKeepAliveRequest(ID=lease.ID).SerializeToString()
    call = await upstream.stream(KEEP_ALIVE_PATH, [], None)
    try:
        while True:
            await call.write(renewal)
            octets = await asyncio.wait_for(call.read(), ASK_S)
            if octets is grpc.aio.EOF or rpc.LeaseKeepAliveResponse.FromString(octets).TTL <= 0:
                return
            await asyncio.sleep(lease.TTL / 3)
    except TimeoutError:
        return
    finally:
        call.cancel()


async def listed(upstream: Upstream, registration: Registration) -> bytes:
    """The answer to MemberList: all registered proxies, or this one alone, so that clients stay with proxies.

    Raises grpc.aio.AioRpcError or NoEndpointsError.
    """
    members = []
    if registration.prefix:
        key, range_end = prefix_range(registration.namespace + f"{registration.prefix}/".encode())
        request = rpc.RangeRequest(key=key, range_end=range_end).SerializeToString()
        found = rpc.RangeResponse.FromString(await upstream.ask(RANGE.path, request, [], ASK_S))
        for kv in found.kvs:
            endpoint = json.loads(kv.value)
            name = json.loads(endpoint.get("Metadata") or "{}").get("name", "")
            members.append(rpc.Member(name=name, clientURLs=[endpoint["Addr"]]))
    if not members:
        members = [rpc.Member(name=socket.gethostname(), clientURLs=[registration.address])]
    return rpc.MemberListResponse(members=members).SerializeToString()
