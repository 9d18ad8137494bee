"""The endpoints of a cluster: how they are written, and one channel for each, taken in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from quorate.client.errors import NoEndpointsError
from quorate.client.tls import TlsFiles

RECEIVE_BYTES_MAX: Final = 2**31 - 1
SEND_BYTES_MAX: Final = 2 * 1024 * 1024  # etcd's client refuses to send more
# A client that pings more often than this is sent away by etcd's gRPC.
KEEPALIVE_MIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How channels behave; times in seconds."""

    dial_timeout_s: float = 2.0
    keepalive_time_s: float = KEEPALIVE_MIN_S
    keepalive_timeout_s: float = 6.0
    send_bytes_max: int = SEND_BYTES_MAX
    receive_bytes_max: int = RECEIVE_BYTES_MAX

    def arguments(self) -> list[tuple[str, int | str]]:
        """The same in gRPC's words."""
        dial_ms = max(int(self.dial_timeout_s * 1000), 100)
        return [
            ("grpc.max_send_message_length", self.send_bytes_max),
            ("grpc.max_receive_message_length", self.receive_bytes_max),
            ("grpc.min_reconnect_backoff_ms", dial_ms),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", dial_ms),
            ("grpc.keepalive_time_ms", int(max(self.keepalive_time_s, KEEPALIVE_MIN_S) * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout_s * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as it was written, where it is, and whether TLS is wanted (None: when TLS files were given)."""

    text: str
    target: str
    secure: bool | None


def parse(text: str) -> Endpoint:
    """`host:port`, `http://..`, `https://..`, `unix://path` or `unixs://path`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Endpoint(text, text, None)
    where = rest.split("/")[0]
    match scheme:
        case "http":
            return Endpoint(text, where, False)
        case "https":
            return Endpoint(text, where, True)
        case "unix":
            return Endpoint(text, f"unix:{rest}", False)
        case "unixs":
            return Endpoint(text, f"unix:{rest}", True)
        case _:
            return Endpoint(text, text, None)


def parse_all(endpoints: str | Sequence[str]) -> list[Endpoint]:
    """Endpoints from a list or one text with commas; NoEndpointsError when there is none."""
    texts = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    found = [parse(text.strip()) for text in texts if text.strip()]
    if not found:
        raise NoEndpointsError
    return found


class Channels:
    """One channel to each endpoint, opened at its first use; `next` takes them in turn."""

    def __init__(self, endpoints: Sequence[Endpoint], tls: TlsFiles | None, options: ChannelOptions) -> None:
        self.endpoints = endpoints
        self._tls = tls
        self._options = options
        self._open: dict[Endpoint, grpc.aio.Channel] = {}
        self._turn = -1

    def next(self) -> grpc.aio.Channel:
        """The channel whose turn it is."""
        self._turn = (self._turn + 1) % len(self.endpoints)
        endpoint = self.endpoints[self._turn]
        channel = self._open.get(endpoint)
        if channel is None:
            channel = self._open[endpoint] = self._dial(endpoint)
        return channel

    def _dial(self, endpoint: Endpoint) -> grpc.aio.Channel:
        arguments = self._options.arguments()
        secure = self._tls is not None if endpoint.secure is None else endpoint.secure
        if not secure:
            return grpc.aio.insecure_channel(endpoint.target, arguments)
        tls = self._tls or TlsFiles()
        if tls.skip_verify:
            credentials, named = tls.trusting(endpoint.target)
            return grpc.aio.secure_channel(endpoint.target, credentials, [*arguments, *named])
        return grpc.aio.secure_channel(endpoint.target, tls.credentials(), [*arguments, *tls.options()])

    async def close(self) -> None:
        """Close all channels; calls still running fail."""
        for channel in self._open.values():
            await channel.close()
        self._open.clear()
