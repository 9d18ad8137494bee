"""What nodes do of their own accord to stay small and sound."""

import sqlite3
from contextlib import closing

from bench.servers import Node
from quorate.proto import rpc_pb2
from tests.cluster.writing import put
from tests.support.cluster import quorate_cluster, wait_until
from tests.support.rpc import calling


def test_a_member_whose_value_was_changed_on_disk_is_found_and_named() -> None:
    with quorate_cluster(3, "--corrupt-check-time", "1s") as cluster:
        put(cluster.nodes[0], b"k", b"value")
        wait_until(lambda: len({hash_of(node) for node in cluster.nodes}) == 1, "all members have the put")
        victim = cluster.nodes[1]
        victim_id = victim.status()["member_id"]
        victim.stop()
        with closing(sqlite3.connect(victim.data_dir / "member" / "snap" / "db")) as database, database:
            (blob,) = database.execute("SELECT kv FROM history WHERE key = ?", (b"k",)).fetchone()
            database.execute("UPDATE history SET kv = ? WHERE key = ?", (blob.replace(b"value", b"walue"), b"k"))
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
