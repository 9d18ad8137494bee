"""What a member answers that cannot reach a quorum."""

import grpc
import pytest

from quorate.proto import rpc_pb2
from quorate.wire import errors
from tests.cluster.writing import get, put
from tests.support.cluster import quorate_cluster
from tests.support.rpc import calling, refusal


def test_without_a_quorum_writes_time_out_and_serializable_reads_answer() -> None:
    with quorate_cluster(3) as cluster:
        survivor = cluster.nodes[0]
        put(survivor, b"k", b"v")
        for node in cluster.nodes[1:]:
            node.kill()
        with calling(survivor.endpoint) as caller:
            for request in (rpc_pb2.PutRequest(key=b"k"), rpc_pb2.RangeRequest(key=b"k")):
                method = "KV/Put" if isinstance(request, rpc_pb2.PutRequest) else "KV/Range"
                with pytest.raises(grpc.RpcError) as caught:
                    caller.unary(method, request, timeout_s=15)
                code, text = refusal(caught.value)
                assert (code, text.startswith(errors.TIMEOUT.text)) == ("UNAVAILABLE", True), text
        assert get(survivor, b"k", serializable=True) == b"v"
        for node in cluster.nodes[1:]:
            node.start()
        for node in cluster.nodes[1:]:
            node.wait_ready()
        assert put(survivor, b"k", b"w") > 0
