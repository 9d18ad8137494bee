"""Who owns a run directory, and what stays of it: nothing."""

import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from quorate.node import run_directory
from quorate.node.run_directory import Taken

NAME = "quorate-0-0123456789ab"
ROUNDS = 150
PROCESSES = 4


def anything(_found: os.stat_result) -> None:
    pass


def test_a_directory_has_one_owner_and_is_gone_after_it(tmp_path: Path) -> None:
    path = tmp_path / NAME
    lock = run_directory.take(path, anything)
    with pytest.raises(Taken):
        run_directory.take(path, anything)
    for name in ("api.0.sock", "storage.log.1", "more.log"):
        (path / name).touch()
    run_directory.leave(path, lock)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_the_operator_named_stays_with_what_is_no_nodes(tmp_path: Path) -> None:
    path = tmp_path / "run"
    lock = run_directory.take(path, anything)
    for name in ("api.0.sock", "api-1.log", "supervisord.log.1", "config.json", "watch.0.sock", "notes", "my.log"):
        (path / name).touch()
    run_directory.leave(path, lock)
    assert sorted(entry.name for entry in path.iterdir()) == ["my.log", "notes"]


def test_what_a_link_leads_to_is_not_emptied(tmp_path: Path) -> None:
    keys, path = tmp_path / "keys", tmp_path / NAME
    keys.mkdir(mode=0o700)
    (keys / "id").touch()
    path.symlink_to(keys)
    run_directory.leave(path, run_directory.take(path, anything))
    assert [entry.name for entry in keys.iterdir()] == ["id"]


def test_a_link_of_another_user_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, path = tmp_path / "keys", tmp_path / NAME
    keys.mkdir(mode=0o700)
    path.symlink_to(keys)
    link = os.lstat(path)
    others = os.stat_result((*link[:4], link.st_uid + 1, *link[5:]))
    monkeypatch.setattr(Path, "lstat", lambda _path: others)
    with pytest.raises(PermissionError, match="another user"):
        run_directory.take(path, anything)
    assert list(keys.iterdir()) == []


def test_a_lock_on_a_file_that_was_removed_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / NAME
    first = run_directory.take(path, anything)
    flock = fcntl.flock
    removed: list[int] = []

    def late(lock: int, operation: int) -> None:
        if not removed:
            removed.append(os.fstat(lock).st_ino)
            run_directory.leave(path, first)
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = run_directory.take(path, anything)
    assert os.path.samestat(os.fstat(second), (path / "lock").stat())
    with pytest.raises(Taken):
        run_directory.take(path, anything)
    run_directory.leave(path, second)
    assert list(tmp_path.iterdir()) == []


def test_who_no_longer_has_the_lock_file_removes_nothing_of_the_next_owner(tmp_path: Path) -> None:
    path = tmp_path / NAME
    first = run_directory.take(path, anything)
    (path / "lock").unlink()
    second = run_directory.take(path, anything)
    (path / "api.0.sock").touch()
    run_directory.leave(path, first)
    assert sorted(entry.name for entry in path.iterdir()) == ["api.0.sock", "lock"]
    os.close(second)


def own_and_leave(path: Path) -> None:
    owned = 0
    while owned < ROUNDS:
        try:
            lock = run_directory.take(path, anything)
        except Taken:
            continue
        (path / "config.json").touch(exist_ok=False)
        (path / "config.json").unlink()
        run_directory.leave(path, lock)
        owned += 1


def test_many_that_come_and_go_never_own_it_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=own_and_leave, args=(tmp_path / NAME,)) for _ in range(PROCESSES)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            process.kill()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_node_left_elsewhere_is_removed_but_not_what_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / NAME
    lock = run_directory.take(path, anything)
    run_directory.leave_abandoned(path)
    assert path.is_dir()
    os.close(lock)
    run_directory.leave_abandoned(path)
    assert list(tmp_path.iterdir()) == []
