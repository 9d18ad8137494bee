"""Users, roles, tokens: every command's rule, error and effect on the auth revision."""

import base64
from collections.abc import Callable
from typing import cast

import pytest
from google.protobuf.message import Message

from quorate.proto import auth_pb2, rpc_pb2
from quorate.storage.access import Access
from quorate.storage.auth import AuthStore, Change
from quorate.wire import errors
from quorate.wire.errors import CallFailed, EtcdError
from quorate.wire.identity import Caller, Credentials, TokenGrant
from quorate.wire.messages import Op

HASH = base64.b64encode(b"$2b$10$hash").decode()
TTL_MS = 300_000


def apply(store: AuthStore, op: Op, message: Message, caller: Caller | None = None) -> Message:
    return store.apply(op, caller, message.SerializeToString())


def add_user(store: AuthStore, name: str, caller: Caller | None = None) -> None:
    apply(store, Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name=name, hashedPassword=HASH), caller)


def grant(
    store: AuthStore,
    role: str,
    kind: auth_pb2.Permission.Type.ValueType,
    key: bytes,
    end: bytes = b"",
    by: Caller | None = None,
) -> None:
    perm = auth_pb2.Permission(permType=kind, key=key, range_end=end)
    apply(store, Op.ROLE_GRANT_PERMISSION, rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=perm), by)


def give(store: AuthStore, user: str, role: str, by: Caller | None = None) -> None:
    apply(store, Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role), by)


@pytest.fixture
def store() -> AuthStore:
    """Auth on; root; alice who may read and write [a, c), bob who may do nothing."""
    made = AuthStore(TTL_MS)
    for name in ("root", "alice", "bob"):
        add_user(made, name)
    apply(made, Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="ab"))
    grant(made, "ab", auth_pb2.Permission.READWRITE, b"a", b"c")
    give(made, "alice", "ab")
    give(made, "root", "root")
    apply(made, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest())
    return made


def in_branch(branch: str, *operations: rpc_pb2.RequestOp) -> rpc_pb2.TxnRequest:
    if branch == "success":
        return rpc_pb2.TxnRequest(success=operations)
    return rpc_pb2.TxnRequest(failure=operations)


def at(store: AuthStore, name: str) -> Caller:
    return Caller(name, store.revision)


def fails(error: EtcdError, call: Callable[[], object]) -> None:
    with pytest.raises(CallFailed) as failure:
        call()
    assert error == failure.value.error


def test_the_auth_revision_starts_at_one_and_counts_changes_but_not_enabling() -> None:
    store = AuthStore(TTL_MS)
    assert store.revision == 1
    add_user(store, "root")
    give(store, "root", "root")
    assert store.revision == 3
    apply(store, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest())
    assert store.revision == 3
    apply(store, Op.AUTH_DISABLE, rpc_pb2.AuthDisableRequest(), Caller("root", 3))
    assert store.revision == 4
    apply(store, Op.AUTH_DISABLE, rpc_pb2.AuthDisableRequest())
    assert store.revision == 4


def test_enabling_needs_a_root_user_with_the_root_role() -> None:
    store = AuthStore(TTL_MS)
    fails(errors.ROOT_USER_NOT_EXIST, lambda: apply(store, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest()))
    add_user(store, "root")
    fails(errors.ROOT_ROLE_NOT_EXIST, lambda: apply(store, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest()))


def test_a_caller_needs_the_permission_for_the_whole_range(store: AuthStore) -> None:
    alice = at(store, "alice")
    store.check_keys(alice, True, b"a", b"c")
    store.check_keys(alice, False, b"b")
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(alice, False, b"a", b"d"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(alice, False, b"a", b"\0"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(at(store, "bob"), False, b"a"))
    store.check_keys(at(store, "root"), True, b"\0", b"\0")


def test_a_permission_of_a_kind_that_is_none_permits_nothing(store: AuthStore) -> None:
    apply(store, Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="odd"), at(store, "root"))
    grant(store, "odd", cast("auth_pb2.Permission.Type.ValueType", 77), b"a", by=at(store, "root"))
    give(store, "bob", "odd", at(store, "root"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(at(store, "bob"), False, b"a"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(at(store, "bob"), True, b"a"))


def test_no_credentials_and_old_ones_are_told_apart(store: AuthStore) -> None:
    fails(errors.USER_EMPTY, lambda: store.check_keys(None, False, b"a"))
    old = at(store, "alice")
    add_user(store, "carol", at(store, "root"))
    fails(errors.AUTH_OLD_REVISION, lambda: store.check_keys(old, False, b"a"))


def test_a_revoked_right_is_gone_for_the_next_call(store: AuthStore) -> None:
    request = rpc_pb2.AuthUserRevokeRoleRequest(name="alice", role="ab")
    apply(store, Op.USER_REVOKE_ROLE, request, at(store, "root"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(at(store, "alice"), False, b"a"))


def test_only_root_manages(store: AuthStore) -> None:
    fails(errors.PERMISSION_DENIED, lambda: add_user(store, "eve", at(store, "alice")))
    fails(errors.USER_EMPTY, lambda: add_user(store, "eve", None))
    fails(errors.USER_NOT_FOUND, lambda: add_user(store, "eve", at(store, "nobody")))
    fails(errors.PERMISSION_DENIED, lambda: store.users(at(store, "alice")))
    fails(errors.PERMISSION_DENIED, lambda: store.status(at(store, "alice")))
    assert "eve" not in store.users(at(store, "root")).users


def test_a_user_sees_itself_and_its_roles_only(store: AuthStore) -> None:
    alice = at(store, "alice")
    own = rpc_pb2.AuthUserGetRequest(name="alice").SerializeToString()
    other = rpc_pb2.AuthUserGetRequest(name="bob").SerializeToString()
    assert ["ab"] == list(store.user(alice, own).roles)
    fails(errors.PERMISSION_DENIED, lambda: store.user(alice, other))
    held = rpc_pb2.AuthRoleGetRequest(role="ab").SerializeToString()
    assert [b"a"] == [perm.key for perm in store.role(alice, held).perm]
    fails(errors.PERMISSION_DENIED, lambda: store.role(at(store, "bob"), held))


def test_root_cannot_saw_off_its_own_branch_while_auth_is_on(store: AuthStore) -> None:
    root = at(store, "root")
    for op, request in (
        (Op.USER_DELETE, rpc_pb2.AuthUserDeleteRequest(name="root")),
        (Op.USER_REVOKE_ROLE, rpc_pb2.AuthUserRevokeRoleRequest(name="root", role="root")),
        (Op.ROLE_DELETE, rpc_pb2.AuthRoleDeleteRequest(role="root")),
    ):
        fails(errors.INVALID_AUTH_MGMT, lambda op=op, request=request: apply(store, op, request, root))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("op", "request_", "error"),
    [
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(), errors.USER_EMPTY),
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name="alice"), errors.USER_ALREADY_EXIST),
        (Op.USER_DELETE, rpc_pb2.AuthUserDeleteRequest(name="x"), errors.USER_NOT_FOUND),
        (Op.USER_CHANGE_PASSWORD, rpc_pb2.AuthUserChangePasswordRequest(name="x"), errors.USER_NOT_FOUND),
        (Op.USER_ADD, rpc_pb2.AuthUserAddRequest(name="eve", hashedPassword="!!"), errors.NO_PASSWORD_USER),
        (
            Op.USER_CHANGE_PASSWORD,
            rpc_pb2.AuthUserChangePasswordRequest(name="bob", hashedPassword="YQ"),
            errors.NO_PASSWORD_USER,
        ),
        (Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user="x", role="ab"), errors.USER_NOT_FOUND),
        (Op.USER_GRANT_ROLE, rpc_pb2.AuthUserGrantRoleRequest(user="bob", role="x"), errors.ROLE_NOT_FOUND),
        (Op.USER_REVOKE_ROLE, rpc_pb2.AuthUserRevokeRoleRequest(name="x", role="ab"), errors.USER_NOT_FOUND),
        (Op.USER_REVOKE_ROLE, rpc_pb2.AuthUserRevokeRoleRequest(name="bob", role="ab"), errors.ROLE_NOT_GRANTED),
        (Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(), errors.ROLE_EMPTY),
        (Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="ab"), errors.ROLE_ALREADY_EXIST),
        (Op.ROLE_DELETE, rpc_pb2.AuthRoleDeleteRequest(role="x"), errors.ROLE_NOT_FOUND),
        (Op.ROLE_GRANT_PERMISSION, rpc_pb2.AuthRoleGrantPermissionRequest(name="ab"), errors.PERMISSION_NOT_GIVEN),
        (
            Op.ROLE_GRANT_PERMISSION,
            rpc_pb2.AuthRoleGrantPermissionRequest(name="x", perm=auth_pb2.Permission(key=b"a")),
            errors.ROLE_NOT_FOUND,
        ),
        (
            Op.ROLE_GRANT_PERMISSION,
            rpc_pb2.AuthRoleGrantPermissionRequest(name="ab", perm=auth_pb2.Permission(key=b"b", range_end=b"a")),
            errors.INVALID_AUTH_MGMT,
        ),
        (
            Op.ROLE_REVOKE_PERMISSION,
            rpc_pb2.AuthRoleRevokePermissionRequest(role="ab", key=b"a"),
            errors.PERMISSION_NOT_GRANTED,
        ),
        (Op.ROLE_REVOKE_PERMISSION, rpc_pb2.AuthRoleRevokePermissionRequest(role="x"), errors.ROLE_NOT_FOUND),
    ],
)
def test_a_wrong_request_fails_with_its_error_and_changes_nothing(
    store: AuthStore, op: Op, request_: Message, error: EtcdError
) -> None:
    revision = store.revision
    store.changes.clear()
    fails(error, lambda: apply(store, op, request_, at(store, "root")))
    assert revision == store.revision
    assert [] == store.changes


def test_granting_a_role_twice_succeeds_without_a_change(store: AuthStore) -> None:
    revision = store.revision
    give(store, "alice", "ab", at(store, "root"))
    assert revision == store.revision


def test_granting_the_same_range_again_replaces_its_type(store: AuthStore) -> None:
    grant(store, "ab", auth_pb2.Permission.READ, b"a", b"c", at(store, "root"))
    fails(errors.PERMISSION_DENIED, lambda: store.check_keys(at(store, "alice"), True, b"a"))
    store.check_keys(at(store, "alice"), False, b"a")


def test_deleting_a_role_takes_it_from_every_user(store: AuthStore) -> None:
    apply(store, Op.ROLE_DELETE, rpc_pb2.AuthRoleDeleteRequest(role="ab"), at(store, "root"))
    own = rpc_pb2.AuthUserGetRequest(name="alice").SerializeToString()
    assert [] == list(store.user(at(store, "alice"), own).roles)


def test_the_root_role_is_shown_as_everything_once_it_exists(store: AuthStore) -> None:
    asked = rpc_pb2.AuthRoleGetRequest(role="root").SerializeToString()
    fails(errors.ROLE_NOT_FOUND, lambda: store.role(at(store, "root"), asked))
    apply(store, Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="root"), at(store, "root"))
    shown = store.role(at(store, "root"), asked)
    assert [(auth_pb2.Permission.READWRITE, b"", b"\0")] == [(p.permType, p.key, p.range_end) for p in shown.perm]


def test_a_token_names_its_user_until_it_rests_for_a_time_to_live(store: AuthStore) -> None:
    token = store.authenticate(TokenGrant("alice", "abcdefghijklmnop", store.revision), 42, 0).token
    assert token == "abcdefghijklmnop.42"
    assert at(store, "alice") == store.caller_of(token, TTL_MS - 1)
    assert at(store, "alice") == store.caller_of(token, 2 * TTL_MS - 2)
    fails(errors.INVALID_AUTH_TOKEN, lambda: store.caller_of(token, 4 * TTL_MS))
    store.forget_expired_tokens(4 * TTL_MS)
    assert Change("token", token, None) == store.changes[-1]


def test_tokens_die_with_the_password_the_user_and_auth_itself(store: AuthStore) -> None:
    def login(name: str) -> str:
        return store.authenticate(TokenGrant(name, "x" * 16, store.revision), store.revision, 0).token

    token = login("alice")
    change = rpc_pb2.AuthUserChangePasswordRequest(name="alice", hashedPassword=HASH)
    apply(store, Op.USER_CHANGE_PASSWORD, change, at(store, "root"))
    fails(errors.INVALID_AUTH_TOKEN, lambda: store.caller_of(token, 1))
    token = login("alice")
    apply(store, Op.USER_DELETE, rpc_pb2.AuthUserDeleteRequest(name="alice"), at(store, "root"))
    fails(errors.INVALID_AUTH_TOKEN, lambda: store.caller_of(token, 1))
    token = login("bob")
    apply(store, Op.AUTH_DISABLE, rpc_pb2.AuthDisableRequest(), at(store, "root"))
    assert store.caller_of(token, 1) is None
    apply(store, Op.AUTH_ENABLE, rpc_pb2.AuthEnableRequest())
    fails(errors.INVALID_AUTH_TOKEN, lambda: store.caller_of(token, 1))


def test_a_password_checked_against_an_older_revision_gives_no_token(store: AuthStore) -> None:
    stale = TokenGrant("alice", "x" * 16, store.revision - 1)
    fails(errors.AUTH_OLD_REVISION, lambda: store.authenticate(stale, 1, 0))


def test_credentials_of_an_unknown_user_fail_like_a_wrong_password(store: AuthStore) -> None:
    assert Credentials(b"$2b$10$hash", False, store.revision) == store.credentials("alice")
    fails(errors.AUTH_FAILED, lambda: store.credentials("nobody"))
    fails(errors.AUTH_NOT_ENABLED, lambda: AuthStore(TTL_MS).credentials("alice"))


def test_a_restart_restores_users_roles_tokens_and_revision(store: AuthStore) -> None:
    token = store.authenticate(TokenGrant("alice", "y" * 16, store.revision), 9, 0).token
    rows: dict[tuple[str, str], bytes] = {}
    for table, name, value in store.changes:
        if value is None:
            del rows[table, name]
        else:
            rows[table, name] = value
    again = AuthStore(TTL_MS)
    again.load((Change(table, name, value) for (table, name), value in rows.items()), 0)
    assert store.revision == again.revision
    assert again.enabled
    assert at(store, "alice") == again.caller_of(token, 1)
    again.check_keys(at(again, "alice"), True, b"a", b"c")
    fails(errors.PERMISSION_DENIED, lambda: again.check_keys(at(again, "bob"), False, b"a"))


def test_identities_survive_packing() -> None:
    caller, given = Caller("ü", 7), TokenGrant("ü", "abc", 8)
    assert caller == Caller.unpack(caller.pack())
    assert given == TokenGrant.unpack(given.pack())
    assert Credentials(b"h", True, 3) == Credentials.unpack(Credentials(b"h", True, 3).pack())


class TestRequests:
    """What each request needs, for a caller who may do everything in [a, c) and nothing else."""

    inside = rpc_pb2.PutRequest(key=b"a")
    outside = rpc_pb2.PutRequest(key=b"z")

    @pytest.fixture
    def access(self, store: AuthStore) -> Access:
        return Access(store, {1: [b"a"], 2: [b"a", b"z"]}.get)  # type: ignore[arg-type]

    def test_a_put_with_a_lease_touches_every_key_of_the_lease(self, store: AuthStore, access: Access) -> None:
        access.check_put(at(store, "alice"), rpc_pb2.PutRequest(key=b"b", lease=1))
        fails(
            errors.PERMISSION_DENIED,
            lambda: access.check_put(at(store, "alice"), rpc_pb2.PutRequest(key=b"b", lease=2)),
        )

    @pytest.mark.parametrize("write_only", [rpc_pb2.PutRequest(key=b"w"), rpc_pb2.PutRequest(key=b"w", prev_kv=True)])
    def test_returning_the_previous_pair_also_reads(
        self, store: AuthStore, access: Access, write_only: rpc_pb2.PutRequest
    ) -> None:
        root = at(store, "root")
        apply(store, Op.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name="w"), root)
        grant(store, "w", auth_pb2.Permission.WRITE, b"w", by=at(store, "root"))
        give(store, "bob", "w", at(store, "root"))
        delete = rpc_pb2.DeleteRangeRequest(key=b"w", prev_kv=write_only.prev_kv)
        if write_only.prev_kv:
            fails(errors.PERMISSION_DENIED, lambda: access.check_put(at(store, "bob"), write_only))
            fails(errors.PERMISSION_DENIED, lambda: access.check_delete(at(store, "bob"), delete))
        else:
            access.check_put(at(store, "bob"), write_only)
            access.check_delete(at(store, "bob"), delete)

    @pytest.mark.parametrize("branch", ["success", "failure"])
    @pytest.mark.parametrize("depth", [0, 1, 3])
    @pytest.mark.parametrize(
        "operation",
        [
            rpc_pb2.RequestOp(request_put=outside),
            rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"a", range_end=b"\0")),
            rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"z")),
            rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"z")])),
        ],
    )
    def test_every_operation_and_compare_of_a_transaction_is_judged_at_every_depth(
        self, store: AuthStore, access: Access, branch: str, depth: int, operation: rpc_pb2.RequestOp
    ) -> None:
        for _ in range(depth):
            operation = rpc_pb2.RequestOp(request_txn=in_branch(branch, operation))
        allowed = rpc_pb2.RequestOp(request_put=self.inside)
        access.check_txn(at(store, "alice"), rpc_pb2.TxnRequest(success=[allowed], failure=[allowed]))
        request = in_branch(branch, allowed, operation)
        fails(errors.PERMISSION_DENIED, lambda: access.check_txn(at(store, "alice"), request))

    def test_listing_leases_reads_every_attached_key_unless_root(self, store: AuthStore, access: Access) -> None:
        access.check_all_leases(at(store, "alice"), [1])
        fails(errors.PERMISSION_DENIED, lambda: access.check_all_leases(at(store, "alice"), [1, 2]))
        access.check_all_leases(at(store, "root"), [1, 2])
