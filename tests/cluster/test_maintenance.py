"""What nodes do of their own accord to stay small and sound."""

import sqlite3
from contextlib import closing

import grpc

from bench.servers import Node
from quorate.proto import rpc_pb2
from quorate.storage import schema
from quorate.wire import errors
from tests.cluster.writing import put
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import calling, refusal


def test_a_member_whose_value_was_changed_on_disk_is_found_and_named() -> None:
    with quorate_cluster(3, "--corrupt-check-time", "1s") as cluster:
        put(cluster.nodes[0], b"k", b"value")
        wait_until(lambda: len({hash_of(node) for node in cluster.nodes}) == 1, "all members have the put")
        victim = cluster.nodes[1]
        victim_id = victim.status()["member_id"]
        victim.stop()
        with closing(sqlite3.connect(victim.data_dir / "member" / "snap" / "db")) as database, database:
            record, previous, blob = database.execute("SELECT id, prev, kv FROM history WHERE key = x'6b'").fetchone()
            changed = blob.replace(
                b"value", b"walue"
            )  # with its checksum: no bit of the disk, but a fault of a program
            seal = schema.seal_of(record, previous, changed)
            database.execute("UPDATE history SET kv = ?, crc = ? WHERE id = ?", (changed, seal, record))
        victim.start()
        wait_until(lambda: (victim_id, rpc_pb2.CORRUPT) in alarms(cluster.nodes[0]), "the alarm is on", 60)


def test_the_history_is_compacted_without_being_asked() -> None:
    with quorate_cluster(1, "--auto-compaction-retention", "1s") as cluster:
        node = cluster.nodes[0]
        revision = put(node, b"k", b"1")
        wait_until(lambda: compact_revision(node) >= revision, "the put's revision is compacted", 30)


def hash_of(node: Node) -> int:
    with calling(node.endpoint) as caller:
        return int(caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest()).hash)


def compact_revision(node: Node) -> int:
    with calling(node.endpoint) as caller:
        return int(caller.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest()).compact_revision)


def alarms(node: Node) -> set[tuple[int, int]]:
    with calling(node.endpoint) as caller:
        answer = caller.unary("Maintenance/Alarm", rpc_pb2.AlarmRequest())
    return {(alarm.memberID, alarm.alarm) for alarm in answer.alarms}


def test_downgrades_are_refused_and_to_cancel_none_is_no_error() -> None:
    actions = rpc_pb2.DowngradeRequest.DowngradeAction
    with quorate_cluster() as cluster, calling(cluster.nodes[0].endpoint) as caller:

        def ask(action: rpc_pb2.DowngradeRequest.DowngradeAction.ValueType, version: str = "") -> str:
            request = rpc_pb2.DowngradeRequest(action=action, version=version)
            try:
                return str(caller.unary("Maintenance/Downgrade", request).version)
            except grpc.RpcError as error:
                return refusal(error)[1]

        wait_until(lambda: ask(actions.CANCEL) == "3.6", "the cluster version is decided")
        assert ask(actions.VALIDATE, "old") == errors.WRONG_DOWNGRADE_VERSION_FORMAT.text
        assert ask(actions.ENABLE, "3.4.0") == errors.INVALID_DOWNGRADE_TARGET_VERSION.text
