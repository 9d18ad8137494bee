"""LIBRARY: what applications import; needs nothing of the server.

    from quorate.client import Client

    with Client("127.0.0.1:2379") as client:
        client.put("greeting", "hello")

`AsyncClient` is the same for asyncio; `Client` runs one in a thread. Both speak etcd's gRPC API and work with etcd too.
"""

from quorate.client.aio import AsyncClient
from quorate.client.errors import (
    CompactedError,
    EtcdError,
    LeaseExpiredError,
    NoEndpointsError,
    NotLeaderError,
    OutcomeUnknownError,
)
from quorate.client.ranges import FROM_KEY, prefix_end
from quorate.client.sync import Client
from quorate.client.tls import TlsFiles
from quorate.client.txn import Txn

__all__ = [
    "FROM_KEY",
    "AsyncClient",
    "Client",
    "CompactedError",
    "EtcdError",
    "LeaseExpiredError",
    "NoEndpointsError",
    "NotLeaderError",
    "OutcomeUnknownError",
    "TlsFiles",
    "Txn",
    "prefix_end",
]
