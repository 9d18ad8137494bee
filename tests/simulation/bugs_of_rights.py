"""Mistakes about users and rights, to be planted like those in `bugs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from quorate.proto import rpc_pb2
from quorate.storage import access, apply, auth, judge, permissions
from quorate.wire import messages

Patch = pytest.MonkeyPatch


def only_the_member_that_was_asked_judges_rights(patch: Patch) -> None:
    """Judged where a call comes in and not where it is applied: the others do what was refused."""
    chunk_of = apply.Applier.chunk

    def applied(self: Any, chunk: messages.Chunk) -> list[Any]:
        check = self.judge.check
        if chunk.origin.member_id != self.headers.member_id:
            self.judge.check = lambda _op, _identity, _body: None
        try:
            return chunk_of(self, chunk)
        finally:
            self.judge.check = check

    patch.setattr(apply.Applier, "chunk", applied)


def a_caller_keeps_the_rights_it_came_with(patch: Patch) -> None:
    """etcd #14571's class: what was looked up once outlives a change of rights."""
    known = judge.Judge._known

    def _known(self: Any, identity: bytes) -> Any:
        self._epoch = self._auth.epoch
        return known(self, identity)

    patch.setattr(judge.Judge, "_known", _known)


def a_session_outlives_a_change_of_rights(patch: Patch) -> None:
    """Storage goes by the rights a caller had when its api worker last looked, and does not mind how long ago."""

    def check_keys(self: Any, caller: Any, write: bool, key: bytes, range_end: bytes = b"") -> None:
        if self.enabled and caller is not None and caller.name:
            kept = self.__dict__.setdefault("kept", {})
            if caller.name not in kept or caller.auth_revision >= self.revision:
                kept[caller.name] = self._rights_of(caller.name)
            caller = caller._replace(auth_revision=self.revision)
            self._rights[caller.name] = kept[caller.name]
        original(self, caller, write, key, range_end)

    original = auth.AuthStore.check_keys
    patch.setattr(auth.AuthStore, "check_keys", check_keys)
    patch.setattr(auth.AuthStore, "rights_of", lambda self, caller: None)


def compiled_rights_are_not_thrown_away(patch: Patch) -> None:
    """Each member goes on with what it worked out before the change, if it did."""

    def _raise_revision(self: Any) -> None:
        self.revision += 1
        self._save_state()

    patch.setattr(auth.AuthStore, "_raise_revision", _raise_revision)


def nested_operations_are_not_judged(patch: Patch) -> None:
    """CVE-2026-33343."""
    check_txn = access.Access.check_txn

    def checked(self: Any, caller: Any, request: Any) -> None:
        flat = type(request)(compare=request.compare)
        for branch, judged in ((request.success, flat.success), (request.failure, flat.failure)):
            judged.extend(one for one in branch if not one.HasField("request_txn"))
        check_txn(self, caller, flat)

    patch.setattr(access.Access, "check_txn", checked)


def a_range_of_rights_holds_its_end(patch: Patch) -> None:
    covers = permissions.IntervalSet.covers
    patch.setattr(
        permissions.IntervalSet,
        "covers",
        lambda self, key, range_end: covers(self, key, range_end) or (not range_end and key in self._ends),
    )


def a_range_is_judged_by_where_it_begins(patch: Patch) -> None:
    covers = permissions.IntervalSet.covers
    patch.setattr(permissions.IntervalSet, "covers", lambda self, key, _range_end: covers(self, key, b""))


def roles_do_not_survive_a_restart(patch: Patch) -> None:
    """Nor do they come with an image."""
    load = auth.AuthStore.load

    def loaded(self: Any, rows: Iterable[Any], now_ms: int) -> None:
        load(self, [row for row in rows if row.table != "role"], now_ms)

    patch.setattr(auth.AuthStore, "load", loaded)


def a_restart_forgets_that_there_are_users(patch: Patch) -> None:
    """etcd #14571: a member that came back did not ask who calls."""
    load = auth.AuthStore.load

    def loaded(self: Any, rows: Iterable[Any], now_ms: int) -> None:
        load(self, rows, now_ms)
        self.enabled = False

    patch.setattr(auth.AuthStore, "load", loaded)


def members_have_users_from_different_entries_on(patch: Patch) -> None:
    """etcd #14571's class: some members ask who calls one entry later than others."""
    change = apply.Applier._change_auth

    def _change_auth(self: Any, op: int, identity: bytes, body: bytes) -> bytes:
        answer = change(self, op, identity, body)
        if op == messages.Op.AUTH_ENABLE and self.headers.member_id % 2:
            self.auth.enabled = False
            self.late = self.index
        return answer

    chunk_of = apply.Applier.chunk

    def applied(self: Any, chunk: messages.Chunk) -> list[Any]:
        late = vars(self).get("late", 0)
        if late and self.index > late + 1:
            self.auth.enabled = True
            self.late = 0
        return chunk_of(self, chunk)

    patch.setattr(apply.Applier, "_change_auth", _change_auth)
    patch.setattr(apply.Applier, "chunk", applied)


def a_role_that_is_deleted_stays_with_its_users(patch: Patch) -> None:
    """It is said to be gone, and works on."""

    def _delete_role(self: Any, body: bytes) -> Any:
        self._raise_revision()
        return rpc_pb2.AuthRoleDeleteResponse()

    patch.setattr(auth.AuthStore, "_delete_role", _delete_role)
