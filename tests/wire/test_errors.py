"""The error catalogue: ids that fit a byte, etcd's texts, the HTTP status computed from the code."""

import pytest

from quorate.wire import errors
from quorate.wire.errors import CallFailed, Code, EtcdError


def defined() -> dict[str, EtcdError]:
    return {name: value for name, value in vars(errors).items() if isinstance(value, EtcdError)}


def test_every_id_is_given_once_and_fits_a_byte() -> None:
    ids = [error.id for error in defined().values()]
    assert sorted(ids) == sorted(set(ids))
    assert all(1 <= error_id <= 255 for error_id in ids)


def test_every_error_is_found_by_its_id_and_bears_its_constants_name() -> None:
    for name, error in defined().items():
        assert errors.by_id(error.id) is error
        assert error.name == name


def test_an_id_that_is_no_error_is_refused() -> None:
    with pytest.raises(KeyError):
        errors.by_id(0)


def test_two_errors_are_sent_as_unknown_although_declared_otherwise() -> None:
    quirks = {error.name: (error.code, error.declared) for error in defined().values() if error.declared}
    assert quirks == {
        "MEMBER_NOT_ENOUGH_STARTED": (Code.UNKNOWN, Code.FAILED_PRECONDITION),
        "TOO_MANY_REQUESTS": (Code.UNKNOWN, Code.RESOURCE_EXHAUSTED),
    }


@pytest.mark.parametrize(
    ("error", "text", "code", "http_status"),
    [
        (errors.EMPTY_KEY, "etcdserver: key is not provided", 3, 400),
        (errors.COMPACTED, "etcdserver: mvcc: required revision has been compacted", 11, 400),
        (errors.NO_SPACE, "etcdserver: mvcc: database space exceeded", 8, 429),
        (errors.LEASE_EXIST, "etcdserver: lease already exists", 9, 400),
        (errors.NO_LEADER, "etcdserver: no leader", 14, 503),
        (errors.INVALID_AUTH_TOKEN, "etcdserver: invalid auth token", 16, 401),
        (errors.CORRUPT, "etcdserver: corrupt cluster", 15, 500),
        (errors.TOO_MANY_REQUESTS, "etcdserver: too many requests", 2, 500),
        (errors.CONTEXT_CANCELED, "context canceled", 1, 499),
        (errors.CONTEXT_DEADLINE_EXCEEDED, "context deadline exceeded", 4, 504),
    ],
)
def test_text_code_and_http_status_are_etcds(error: EtcdError, text: str, code: int, http_status: int) -> None:
    assert (text, code, http_status) == (error.text, error.code, error.http_status)


def test_every_code_has_an_http_status_and_an_unknown_code_is_500() -> None:
    assert {code: errors.http_status(code) for code in Code}[Code.FAILED_PRECONDITION] == 400
    assert errors.http_status(77) == 500


def test_cancel_reason_is_gos_error_string() -> None:
    assert errors.PERMISSION_DENIED.go_text == "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    assert errors.USER_EMPTY.go_text.startswith("rpc error: code = InvalidArgument desc = ")
    assert Code.CANCELLED.go_name == "Canceled"


def test_a_failed_call_carries_its_error() -> None:
    with pytest.raises(CallFailed, match=r"^etcdserver: key not found$") as caught:
        raise CallFailed(errors.KEY_NOT_FOUND)
    assert caught.value.error is errors.KEY_NOT_FOUND


def test_texts_with_variable_parts() -> None:
    assert errors.message_too_large_text(9, 8) == "grpc: received message larger than max (9 vs. 8)"
    assert errors.unknown_method_text("a.B", "C") == "unknown method C for service a.B"
    assert errors.unknown_service_text("a.B") == "unknown service a.B"
