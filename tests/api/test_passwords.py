"""Passwords off the loop: right and wrong ones, the memory of good logins, the bound."""

import asyncio

import bcrypt
import pytest

from quorate.api import passwords
from quorate.api.passwords import Passwords
from quorate.wire import errors
from quorate.wire.errors import CallFailed

COST = 4  # the cheapest bcrypt allows


def test_a_hash_is_for_its_password_alone() -> None:
    async def scenario() -> None:
        work = Passwords(COST)
        hashed = await work.hash("secret")
        assert await work.check("alice", "secret", hashed, 1)
        assert not await work.check("alice", "Secret", hashed, 1)
        assert not await work.check("alice", "x" * 73, hashed, 1)
        assert not await work.check("alice", "secret", b"", 1)
        work.close()

    asyncio.run(scenario())


def test_a_password_longer_than_bcrypt_reads_is_refused() -> None:
    with pytest.raises(CallFailed) as failure:
        asyncio.run(Passwords(COST).hash("x" * 73))
    assert errors.PASSWORD_TOO_LONG == failure.value.error


def test_a_good_login_is_remembered_until_the_auth_revision_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def counting(secret: bytes, hashed: bytes) -> bool:
        checked.append(secret)
        return bcrypt.checkpw(secret, hashed)

    monkeypatch.setattr(passwords, "_matches", counting)

    async def scenario() -> None:
        work = Passwords(COST)
        hashed = await work.hash("secret")
        for revision in (1, 1, 2, 2):
            assert await work.check("alice", "secret", hashed, revision)
        assert [b"secret"] * 2 == checked
        assert not await work.check("alice", "wrong", hashed, 2)
        assert not await work.check("alice", "wrong", hashed, 2)
        assert [b"secret", b"secret", b"wrong", b"wrong"] == checked
        work.close()

    asyncio.run(scenario())


def test_more_waiting_logins_than_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 3)

    async def scenario() -> None:
        work = Passwords(COST)
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(COST))
        logins = [work.check(f"user {n}", "secret", hashed, 1) for n in range(5)]
        results = await asyncio.gather(*logins, return_exceptions=True)
        assert [True] * 3 == results[:3]
        for refused in results[3:]:
            assert isinstance(refused, CallFailed)
            assert errors.TOO_MANY_REQUESTS == refused.error
        work.close()

    asyncio.run(scenario())
