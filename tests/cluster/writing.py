"""A client that keeps writing while a cluster is broken, and remembers what was acknowledged."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2
from tests.support.cluster import wait_until
from tests.support.rpc import Caller, calling

PAUSE_S = 0.02  # after a refusal, before the next member is asked
CALL_S_MAX = 8.0  # etcd answers or refuses within its request timeout of 7 s


class Writer:
    """Puts w/0, w/1, ... one after the other, each until it is acknowledged or given up for the next."""

    def __init__(self, endpoints: list[str]) -> None:
        self.acknowledged: dict[bytes, int] = {}  # key -> revision of its put
        self.refusals: list[str] = []
        self._endpoints = itertools.cycle(endpoints)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * CALL_S_MAX)

    def wait_for(self, more: int, within_s: float = 30.0) -> None:
        """Return when so many further writes have been acknowledged."""
        enough = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= enough, f"{more} more writes are acknowledged", within_s)

    def _write(self) -> None:
        numbers = itertools.count()
        while not self._stop.is_set():
            with calling(next(self._endpoints)) as caller:
                while not self._stop.is_set() and self._put(caller, next(numbers)):
                    pass

    def _put(self, caller: Caller, number: int) -> bool:
        key = b"w/%d" % number
        request = rpc_pb2.PutRequest(key=key, value=b"%d" % number)
        try:
            answer = caller.unary("KV/Put", request, timeout_s=CALL_S_MAX)
        except grpc.RpcError as error:
            self.refusals.append(str(error))
            self._stop.wait(PAUSE_S)
            return False
        self.acknowledged[key] = answer.header.revision
        return True


@contextmanager
def writing(cluster: Cluster) -> Iterator[Writer]:
    """Writes to all members in turn for as long as the block lasts."""
    with Writer(cluster.endpoints) as writer:
        yield writer


def put(node: Node, key: bytes, value: bytes) -> int:
    """Put one key; the revision."""
    with calling(node.endpoint) as caller:
        return int(caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=value)).header.revision)


def get(node: Node, key: bytes, *, serializable: bool = False) -> bytes | None:
    """The value of one key, None when it is not there."""
    with calling(node.endpoint) as caller:
        answer = caller.unary("KV/Range", rpc_pb2.RangeRequest(key=key, serializable=serializable))
    return bytes(answer.kvs[0].value) if answer.kvs else None


def assert_nothing_lost(node: Node, writer: Writer) -> None:
    """As soon as the node answers: every acknowledged write is there at its own revision, without holes between."""
    acknowledged = dict(writer.acknowledged)
    answer = rpc_pb2.RangeResponse.FromString(
        node.wait_answer("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=b"w/", range_end=b"w0").SerializeToString())
    )
    found = {bytes(kv.key): kv.mod_revision for kv in answer.kvs}
    assert len(set(acknowledged.values())) == len(acknowledged)
    assert acknowledged.items() <= found.items()
    revisions = sorted(found.values())
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions))), "revisions have holes"
