"""A discovery service that speaks etcd's v3 API: --discovery-endpoints and --discovery-token."""

from __future__ import annotations

from typing import Final, NoReturn

from quorate.client.aio import AsyncClient
from quorate.client.endpoints import ChannelOptions
from quorate.client.errors import EtcdError
from quorate.client.tls import TlsFiles
from quorate.discovery.failures import SIZE_NOT_FOUND, DiscoveryFailed, ServiceLost
from quorate.discovery.registry import Listing, Registered
from quorate.node.config import Config
from quorate.proto.kv_pb2 import Event, KeyValue

ROOT: Final = "/_etcd/registry"
PASSING: Final = frozenset({1, 4, 8, 13, 14})  # cancelled, deadline, exhausted, internal, unavailable


class V3Registry:
    """The keys below one token."""

    def __init__(self, client: AsyncClient, token: str) -> None:
        self._client = client
        self._size_key = f"{ROOT}/{token}/_config/size"
        self._members = f"{ROOT}/{token}/members/"

    async def size(self) -> str:
        try:
            found = await self._client.get(self._size_key)
        except EtcdError as error:
            _judge(error)
        if not found.kvs:
            raise DiscoveryFailed(SIZE_NOT_FOUND)
        return found.kvs[0].value.decode(errors="replace")

    async def listing(self) -> Listing:
        try:
            found = await self._client.get_prefix(self._members)
        except EtcdError as error:
            _judge(error)
        return Listing(tuple(self._registered(kv) for kv in found.kvs), found.header.revision)

    async def register(self, member_id: str, contents: str) -> None:
        try:
            await self._client.put(f"{self._members}{member_id}", contents)
        except EtcdError as error:
            _judge(error)

    async def newcomers(self, moment: int) -> Listing:
        try:
            async with self._client.watch_prefix(self._members, start_revision=moment + 1) as watch:
                async for response in watch:
                    puts = [event.kv for event in response.events if event.type == Event.PUT]
                    if puts:
                        return Listing(tuple(map(self._registered, puts)), puts[-1].mod_revision)
        except EtcdError as error:
            _judge(error)
        raise ServiceLost("the watch has ended")

    def _registered(self, kv: KeyValue) -> Registered:
        member_id = kv.key.decode(errors="replace").removeprefix(self._members)
        return Registered(member_id, kv.value.decode(errors="replace"), kv.create_revision)


def client(config: Config) -> AsyncClient:
    """A client of the discovery service, as the flags describe it. OSError for a file that cannot be read."""
    files = TlsFiles(
        config.discovery_cacert or None,
        config.discovery_cert or None,
        config.discovery_key or None,
        skip_verify=config.discovery_insecure_skip_tls_verify,
    )
    encrypted = bool(config.discovery_cacert or config.discovery_cert or not config.discovery_insecure_transport)
    named = any(endpoint.startswith("https://") for endpoint in config.discovery_endpoints)
    user, _, password = config.discovery_user.partition(":")
    if config.discovery_password:
        user, password = config.discovery_user, config.discovery_password
    return AsyncClient(
        list(config.discovery_endpoints),
        user=user or None,
        password=password,
        tls=files if encrypted or (named and files.skip_verify) else None,
        timeout_s=config.discovery_request_timeout / 1000,
        channel=ChannelOptions(
            dial_timeout_s=config.discovery_dial_timeout / 1000,
            keepalive_time_s=config.discovery_keepalive_time / 1000,
            keepalive_timeout_s=config.discovery_keepalive_timeout / 1000,
        ),
    )


def _judge(error: EtcdError) -> NoReturn:
    """What may pass is worth waiting for, as etcd does; a refusal is not."""
    if error.code in PASSING:
        raise ServiceLost(error.text) from error
    raise DiscoveryFailed(error.text) from error
