"""The bbolt reader on a snapshot that etcd 3.4.23 wrote, and on damaged copies of it."""

import gzip
from pathlib import Path

import pytest

from quorate.ctl.bbolt import BboltError, BboltFile
from quorate.proto import auth_pb2, kv_pb2

SNAPSHOT = Path(__file__).parent / "data" / "etcd-3.4-snapshot.db.gz"
# 30 puts (key1 to key30), a delete of key3, a second put of key4, a put under a lease; a user, a role.


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.db"
    path.write_bytes(gzip.decompress(SNAPSHOT.read_bytes()))
    return path


def revision_key(main: int, tombstone: bool = False) -> bytes:
    return main.to_bytes(8, "big") + b"_" + bytes(8) + (b"t" if tombstone else b"")


def test_every_record_is_read_in_revision_order(snapshot: Path) -> None:
    with BboltFile(snapshot) as database:
        records = list(database.items(b"key"))
    expected = [revision_key(main) for main in range(2, 32)] + [
        revision_key(32, True),
        revision_key(33),
        revision_key(34),
    ]
    assert expected == [key for key, _ in records]
    pairs = [kv_pb2.KeyValue.FromString(value) for _, value in records]
    assert [(b"key%d" % n, b"value-%d" % n) for n in range(1, 31)] == [(kv.key, kv.value) for kv in pairs[:30]]
    assert (b"key3", b"") == (pairs[30].key, pairs[30].value)
    assert (b"again", 2, 33) == (pairs[31].value, pairs[31].version, pairs[31].mod_revision)
    assert pairs[32].lease != 0


def test_the_other_buckets_are_there(snapshot: Path) -> None:
    with BboltFile(snapshot) as database:
        assert {b"key", b"lease", b"auth", b"authUsers", b"authRoles", b"members", b"meta"} <= set(database.buckets())
        assert [b"alice"] == [auth_pb2.User.FromString(value).name for _, value in database.items(b"authUsers")]
        assert [] == list(database.items(b"no such bucket"))


def test_the_older_meta_page_serves_when_the_newer_one_is_damaged(snapshot: Path) -> None:
    content = bytearray(snapshot.read_bytes())
    for page in (0, 4096):
        damaged = bytearray(content)
        damaged[page + 40] ^= 1
        snapshot.write_bytes(damaged)
        with BboltFile(snapshot) as database:
            assert b"key" in database.buckets()


@pytest.mark.parametrize("content", [b"", b"hello", bytes(100_000)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(BboltError):
        BboltFile(path)


def test_damage_gives_an_answer_or_a_named_error_and_never_anything_else(snapshot: Path) -> None:
    whole = snapshot.read_bytes()
    turned = [
        is_named(snapshot, bytes((*whole[:at], whole[at] ^ 0xFF, *whole[at + 1 :]))) for at in range(0, len(whole), 61)
    ]
    assert any(turned)
    cut = [is_named(snapshot, whole[:length]) for length in range(1, len(whole), 1021)]
    assert all(cut[: len(cut) // 2]), "half of the file is not there"


def is_named(path: Path, content: bytes) -> bool:
    """Whether reading all of it ends in the error that names damage."""
    path.write_bytes(content)
    try:
        with BboltFile(path) as database:
            for bucket in database.buckets():
                list(database.items(bucket))
    except BboltError:
        return True
    return False
