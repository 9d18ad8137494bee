"""Clocks that jump and leaders that pause: no lease ends before its time, and none is held for ever."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from bench import servers
from bench.servers import Node
from quorate.proto import rpc_pb2
from tests.cluster.writing import get
from tests.support.cluster import paused, product_cluster, quorate_cluster, wait_until
from tests.support.rpc import calling
from tests.support.time import FAKETIME_LIBRARY, time_namespaces

TTL_S = 5
RENEWAL_S_MAX = 1.0  # what was on its way to a leader that paused is lost, and asked again
LONG_TTL_S = 3600
DAY_S = 86_400


def grant(node: Node, ttl_s: int, key: bytes) -> int:
    """A lease with one key."""
    with calling(node.endpoint) as caller:
        lease = int(caller.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=ttl_s)).ID)
        caller.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=b"leased", lease=lease))
    return lease


def left(node: Node, lease: int) -> int:
    with calling(node.endpoint) as caller:
        return int(caller.unary("Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest(ID=lease)).TTL)


@pytest.mark.skipif(not FAKETIME_LIBRARY, reason="libfaketime is not installed")
def test_a_wall_clock_that_jumps_ends_no_lease_early_and_none_late(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    product = servers.quorate()
    faked = {
        "LD_PRELOAD": FAKETIME_LIBRARY,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    product = replace(product, environment={**product.environment, **faked})
    with product_cluster(product) as cluster:
        node = cluster.nodes[0]
        granted_at = time.monotonic()
        lease = grant(node, TTL_S, b"jump")
        for jump_s in (DAY_S, -DAY_S):
            offset.write_text(f"{jump_s:+d}")
            assert left(node, lease) >= 0
        wait_until(lambda: get(node, b"jump") is None, "the lease ends", 3 * TTL_S)
        assert time.monotonic() - granted_at >= TTL_S
        assert left(node, lease) == -1


@pytest.mark.skipif(not time_namespaces(), reason="time namespaces take root and a kernel that has them")
def test_a_machine_whose_monotonic_clock_begins_elsewhere_after_a_boot_ends_no_lease() -> None:
    with quorate_cluster() as cluster:
        node = cluster.nodes[0]
        lease = grant(node, LONG_TTL_S, b"boot")
        node.kill()
        elsewhere = ("unshare", "--time", "--monotonic", str(10 * DAY_S), "--boottime", str(10 * DAY_S))
        node.product = replace(node.product, command=(*elsewhere, *node.product.command))
        node.start()
        node.wait_ready()
        assert LONG_TTL_S - 60 < left(node, lease) <= LONG_TTL_S
        assert get(node, b"boot") == b"leased"


def test_a_lease_outlives_a_leader_that_pauses_and_is_renewed_at_its_successor() -> None:
    with quorate_cluster(3) as cluster:
        leader = cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        lease = grant(follower, TTL_S, b"kept")
        forgotten = grant(follower, TTL_S, b"forgotten")
        granted_at = time.monotonic()
        with paused(leader):
            wait_until(lambda: renewed(follower, lease), "the lease is renewed at the next leader")
            while time.monotonic() - granted_at < TTL_S + 1:
                assert get(follower, b"kept", serializable=True) == b"leased"
                renewed(follower, lease)
        wait_until(lambda: renewed(follower, lease), "the lease is renewed")
        assert get(leader, b"kept") == b"leased"
        wait_until(lambda: left(follower, forgotten) == -1, "the lease that nobody renewed ends")
        assert time.monotonic() - granted_at >= TTL_S
        assert get(leader, b"forgotten") is None


def renewed(node: Node, lease: int) -> bool:
    with calling(node.endpoint) as caller:
        call = caller.stream("Lease/LeaseKeepAlive", [rpc_pb2.LeaseKeepAliveRequest(ID=lease)], timeout_s=RENEWAL_S_MAX)
        try:
            return bool(next(call).TTL == TTL_S)
        except grpc.RpcError:
            return False
        finally:
            call.cancel()
