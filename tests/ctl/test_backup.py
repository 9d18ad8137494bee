"""`quorateutl` on backups: of our own members, of real etcd, and on files that are no good."""

from __future__ import annotations

import gzip
import json
import random
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import servers
from quorate.consensus import bootstrap
from quorate.consensus.joining import Known
from quorate.ctl.quorateutl import main
from quorate.node.config import Config
from quorate.proto import auth_pb2, rpc_pb2
from quorate.storage import snapshot
from quorate.wire.identity import TokenGrant
from quorate.wire.messages import Op
from tests.storage.member import Member
from tests.support.rpc import calling

ETCD_SNAPSHOT = Path(__file__).parent / "data" / "etcd-3.4-snapshot.db.gz"
THREE = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3"
SEGMENT_BYTES = 1 << 20


@pytest.fixture
def etcd_snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "etcd.db"
    path.write_bytes(gzip.decompress(ETCD_SNAPSHOT.read_bytes()))
    return path


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Of a member at revision 101 with a lease, a user, a token and an alarm."""
    member = Member(tmp_path / "old" / "db")
    member.apply(Op.LEASE_GRANT, rpc_pb2.LeaseGrantRequest(ID=7, TTL=1000))
    for number in range(98):
        member.put(b"k%02d" % (number % 50), b"v%d" % number)
    member.put(b"leased", b"1", lease=7)
    member.delete(b"k00")
    auth = member.state.auth
    for op, request in (
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name="root", hashedPassword="eA==")),
        (Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="root")),
        (Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
        (Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest()),
    ):
        auth.apply(op, None, request.SerializeToString())
    auth.authenticate(TokenGrant("root", "letters", auth.revision), 1, 1_000_000)
    member.state.alarms.activate(5, rpc_pb2.NOSPACE)
    member.state.commit()
    path = signed(snapshot.export(member.state.database), tmp_path / "backup.db")
    member.close()
    return path


def signed(file: Path, target: Path) -> Path:
    content = file.read_bytes()
    target.write_bytes(content + sha256(content).digest())
    return target


def utl(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def restored(file: Path, directory: Path, *flags: str, name: str = "a") -> Config:
    """The settings of a member restored from the file."""
    url = next(pair.split("=")[1] for pair in THREE.split(",") if pair.startswith(name))
    chosen = ("--name", name, "--data-dir", str(directory), "--initial-cluster", THREE)
    result = utl("snapshot", "restore", file, *chosen, "--initial-advertise-peer-urls", url, *flags)
    assert result.exit_code == 0, result.output
    return Config(name=name, data_dir=str(directory))


def opened(config: Config) -> Member:
    """The restored database as storage opens it; its log begins behind the restored index."""
    member = Member.__new__(Member)
    member.path, member.quota_bytes, member.term, member.now, member.log = config.database_path, None, 1, 1000.0, []
    member.log += [b""] * len(THREE.split(","))
    member.open()
    return member


# --- looking ---


def test_status_of_an_etcd_file_is_what_etcdutl_shows(etcd_snapshot: Path) -> None:
    assert utl("snapshot", "status", etcd_snapshot).output == "8f118aeb, 34, 30, 29 kB, \n"
    shown = json.loads(utl("-w", "json", "snapshot", "status", etcd_snapshot).output)
    assert shown == {"hash": 0x8F118AEB, "revision": 34, "totalKey": 30, "totalSize": 28672, "version": ""}


def test_status_of_our_backup_counts_live_keys(backup: Path) -> None:
    shown = json.loads(utl("snapshot", "status", backup, "-w", "json").output)
    size = backup.stat().st_size - 32
    assert (101, 50, size, "3.6.0") == tuple(shown[key] for key in ("revision", "totalKey", "totalSize", "version"))
    table = utl("snapshot", "status", backup, "-w", "table").output.splitlines()
    assert ["hash", "revision", "total keys", "total size", "version"] == [
        cell.strip().lower() for cell in table[1].strip("|").split("|")
    ]
    assert len({len(line) for line in table}) == 1


def test_hashkv_of_a_backup_is_what_the_member_answered(backup: Path, tmp_path: Path) -> None:
    member = Member(tmp_path / "old" / "db")
    member.state.auth.enabled = False
    for revision in (0, 50):
        answer = member.ask(Op.HASH_KV, rpc_pb2.HashKVRequest(revision=revision))
        shown = utl("hashkv", backup, "--rev", str(revision)).output
        assert f"{answer.hash}, {revision or 101}, -1\n" == shown
    assert "future revision" in utl("hashkv", backup, "--rev", "102").output
    member.close()


def test_a_damaged_backup_has_no_status(backup: Path) -> None:
    content = bytearray(backup.read_bytes())
    content[20_000] ^= 1
    backup.write_bytes(content)
    result = utl("snapshot", "status", backup)
    assert (1, True) == (result.exit_code, "integrity check failed" in result.output)


@pytest.mark.parametrize("words", [("snapshot", "status"), ("hashkv", "a", "b")])
def test_one_file_is_wanted(words: tuple[str, ...]) -> None:
    result = utl(*words)
    assert (128, True) == (result.exit_code, "requires exactly one argument" in result.output)


# --- restoring ---


def test_keys_leases_and_users_are_kept_and_what_was_of_the_old_cluster_goes(backup: Path, tmp_path: Path) -> None:
    member = opened(restored(backup, tmp_path / "new"))
    state = member.state
    assert (101, 3, 1) == (state.store.revision, state.database.marks.applied_index, state.database.marks.applied_term)
    assert state.auth.enabled
    state.auth.enabled = False
    assert 50 == member.range(b"\0", b"\0", count_only=True).count
    assert (1000, [b"leased"]) == (state.lessor.leases[7].granted_ttl, state.lessor.keys_of(7))
    assert not state.auth._tokens
    assert not state.alarms.active
    member.put(b"new")
    assert 102 == state.store.revision
    member.close()


def test_the_new_log_begins_behind_as_many_entries_as_there_are_members(backup: Path, tmp_path: Path) -> None:
    config = restored(backup, tmp_path / "new", name="b")

    def nobody(_url: str, _timeout: float) -> Known:
        raise OSError

    start = bootstrap.start(config, nobody, SEGMENT_BYTES)
    assert (4, 3, 3) == (start.wal.first_index(), start.wal.last_index, start.wal.hard_state.commit)
    assert ["a", "b", "c"] == sorted(member.name for member in start.meta.membership.members.values())
    assert "b" == start.meta.membership.members[start.meta.member_id].name
    start.wal.close()


def test_a_bumped_revision_compacts_everything_before_it(backup: Path, tmp_path: Path) -> None:
    member = opened(restored(backup, tmp_path / "new", "--bump-revision", "1000", "--mark-compacted"))
    member.state.auth.enabled = False
    assert (1101, 1101) == (member.state.store.revision, member.state.store.compact_revision)
    assert 50 == member.range(b"\0", b"\0", count_only=True).count
    member.put(b"new")
    assert 1102 == member.range(b"new").kvs[0].mod_revision
    member.close()


def test_bump_and_mark_compacted_go_together(backup: Path, tmp_path: Path) -> None:
    for flag in (("--bump-revision", "5"), ("--mark-compacted",)):
        result = utl("snapshot", "restore", backup, "--data-dir", tmp_path / "new", *flag)
        assert (128, True) == (result.exit_code, "--mark-compacted required if --revision-bump > 0" in result.output)


def test_truncated_and_altered_files_are_refused(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    altered = bytearray(whole)
    altered[20_000] ^= 1
    for content, text in (
        (bytes(altered), "expected sha256 ["),
        (whole[:-32], "snapshot missing hash but --skip-hash-check=false"),
        (whole[:-4096], "expected sha256 ["),
        (whole[:-100], "snapshot missing hash but --skip-hash-check=false"),
    ):
        backup.write_bytes(content)
        result = utl("snapshot", "restore", backup, "--data-dir", tmp_path / "new")
        assert (1, True) == (result.exit_code, text in result.output), result.output
        assert not (tmp_path / "new" / "member").exists()


def test_without_the_check_a_bare_file_is_taken_but_not_a_broken_one(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    backup.write_bytes(whole[:-32])
    opened(restored(backup, tmp_path / "new", "--skip-hash-check")).close()
    backup.write_bytes(whole[: 3 * 4096])
    result = utl("snapshot", "restore", backup, "--data-dir", tmp_path / "other", "--skip-hash-check")
    assert (1, True) == (result.exit_code, "damaged" in result.output or "cannot be used" in result.output)
    assert not (tmp_path / "other" / "member").exists()


def test_places_that_are_taken_are_refused(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").touch()
    result = utl("snapshot", "restore", backup, "--data-dir", tmp_path / "new")
    assert f'data-dir "{tmp_path / "new"}" not empty or could not be read' in result.output
    result = utl("snapshot", "restore", backup, "--data-dir", tmp_path / "other", "--wal-dir", tmp_path / "new")
    assert f'wal-dir "{tmp_path / "new"}" exists' in result.output


def test_a_restore_that_was_cut_short_is_done_again(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "new" / "restoring" / "snap").mkdir(parents=True)
    (tmp_path / "new" / "restoring" / "snap" / "db").write_bytes(b"half")
    opened(restored(backup, tmp_path / "new")).close()
    assert ["member"] == [path.name for path in (tmp_path / "new").iterdir()]


def test_the_log_may_be_elsewhere(backup: Path, tmp_path: Path) -> None:
    restored(backup, tmp_path / "new", "--wal-dir", str(tmp_path / "log"))
    assert {"meta.a", "meta.b"} < {path.name for path in (tmp_path / "log").iterdir()}
    assert ["snap"] == [path.name for path in (tmp_path / "new" / "member").iterdir()]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--name", "d"), 'couldn\'t find local name "d" in the initial cluster configuration'),
        (("--name", "a"), "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls="),
        (("--initial-cluster", "a"), 'empty URL given for "a"'),
    ],
)
def test_flags_are_checked_as_a_founding_member_checks_them(
    backup: Path, tmp_path: Path, flags: tuple[str, str], text: str
) -> None:
    words = ("--data-dir", tmp_path / "new", "--initial-cluster", THREE, *flags)
    result = utl("snapshot", "restore", backup, *words)
    assert result.exit_code
    assert text in result.output


# --- from etcd ---


def test_an_etcd_snapshot_becomes_a_member_with_the_same_history(etcd_snapshot: Path, tmp_path: Path) -> None:
    before = utl("hashkv", etcd_snapshot).output
    config = restored(etcd_snapshot, tmp_path / "new")
    assert before == utl("hashkv", config.database_path).output
    member = opened(config)
    assert (b"again", 2, 5, 33) == (
        *((pair := member.range(b"key4").kvs[0]).value, pair.version),
        *(pair.create_revision, pair.mod_revision),
    )
    assert b"value-4" == member.range(b"key4", revision=32).kvs[0].value
    assert b"value-3" == member.range(b"key3", revision=31).kvs[0].value
    assert not member.range(b"key3").kvs
    (lease,) = member.state.lessor.leases.values()
    assert lease.lease_id == member.range(sorted(lease.keys)[0]).kvs[0].lease
    assert isinstance(member.state.auth._users["alice"], auth_pb2.User)
    member.put(b"key4", b"mine")
    assert 3 == member.range(b"key4").kvs[0].version
    member.compact(34, physical=True)
    assert 30 == member.range(b"\0", b"\0", count_only=True).count
    member.close()


def test_the_history_of_a_real_etcd_has_the_same_hash_before_and_after(tmp_path: Path) -> None:
    try:
        product = servers.etcd()
    except servers.NotInstalledError as missing:
        pytest.skip(str(missing))
    dice = random.Random(4)
    with servers.running(product, 1) as cluster, calling(cluster.endpoints[0]) as etcd:
        etcd.unary("Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=77, TTL=5000))
        for number in range(200):
            key = b"k%d" % dice.randrange(20)
            match dice.randrange(4):
                case 0:
                    etcd.unary("KV/DeleteRange", rpc_pb2.DeleteRangeRequest(key=key, range_end=key + b"5"))
                case 1:
                    txn = rpc_pb2.TxnRequest()
                    for name in (b"t1", b"t2", key):
                        txn.success.add().request_put.key = name
                    etcd.unary("KV/Txn", txn)
                case _:
                    lease = 77 if number % 7 == 0 else 0
                    etcd.unary("KV/Put", rpc_pb2.PutRequest(key=key, value=b"%d" % number, lease=lease))
        revision = etcd.unary("KV/Put", rpc_pb2.PutRequest(key=b"middle")).header.revision
        for number in range(20):
            etcd.unary("KV/Put", rpc_pb2.PutRequest(key=b"k%d" % number, value=b"late"))
        etcd.unary("KV/Compact", rpc_pb2.CompactionRequest(revision=revision, physical=True))
        told = etcd.unary("Maintenance/HashKV", rpc_pb2.HashKVRequest())
        alive = etcd.unary("KV/Range", rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
        answers = etcd.stream("Maintenance/Snapshot", [rpc_pb2.SnapshotRequest()])
        file = tmp_path / "etcd.db"
        file.write_bytes(b"".join(answer.blob for answer in answers))
    shown = f"{told.hash}, {told.header.revision}, {told.compact_revision}\n"
    assert shown == utl("hashkv", file).output
    config = restored(file, tmp_path / "new")
    assert shown == utl("hashkv", config.database_path).output
    member = opened(config)
    assert list(alive.kvs) == list(member.range(b"\0", b"\0").kvs)
    leased = {kv.key for kv in alive.kvs if kv.lease}
    assert leased == member.state.lessor.leases[77].keys
    member.close()
