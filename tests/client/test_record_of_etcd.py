"""Mistakes of etcd's clients, with a server that does what it was asked and fails to say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from quorate.client import Client, OutcomeUnknownError, Txn, methods, txn
from quorate.proto import rpc_pb2 as rpc

REPEATS = 3


class Forgetful(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Takes every call, remembers it, and is gone before it answers; reads are answered in the end."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = str(details.method)

        def handle(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self.taken.append(path)
            if path != methods.RANGE.path or self.taken.count(path) <= REPEATS:
                context.abort(grpc.StatusCode.UNAVAILABLE, "transport is closing")
            return b""

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
def forgetful() -> Iterator[tuple[Forgetful, Client]]:
    handler = Forgetful()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=(handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with Client(f"127.0.0.1:{port}", timeout_s=20) as client:
                yield handler, client
        finally:
            server.stop(None).wait()


WRITES: dict[str, Callable[[Client], object]] = {
    "txn": lambda client: client.commit(Txn().when(txn.version("a").equals(0)).then(txn.put("a", "1"))),
    "put": lambda client: client.put("a", "1"),
    "delete": lambda client: client.delete("a"),
    "grant": lambda client: client.call(methods.LEASE_GRANT, rpc.LeaseGrantRequest(TTL=60)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_may_have_been_done_is_not_asked_again(
    forgetful: tuple[Forgetful, Client], write: Callable[[Client], object]
) -> None:
    """jetcd #1444, etcd #18424 and #14890: transactions whose answer was lost were done twice."""
    handler, client = forgetful
    with pytest.raises(OutcomeUnknownError):
        write(client)
    assert len(handler.taken) == 1


def test_a_read_whose_answer_was_lost_is_asked_again(forgetful: tuple[Forgetful, Client]) -> None:
    handler, client = forgetful
    assert client.get("a").count == 0
    assert len(handler.taken) == REPEATS + 1
