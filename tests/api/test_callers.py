"""Who calls: tokens are looked up once, remembered until users or roles change, and kept alive while they are used."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from quorate.api.callers import Callers
from quorate.api.calls import Context
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.identity import UNJUDGED, Caller
from quorate.wire.messages import Kind, Op
from tests.api.worker import Worker, failure, get, put, run, until, worker

GOOD = (("token", "abc.7"),)
BEARER = (("authorization", "Bearer abc.7"),)


def asked(door: Worker) -> int:
    return sum(op == Op.TOKEN for _, op in door.fake.seen)


async def guarded(door: Worker) -> None:
    door.fake.tokens["abc.7"] = "alice"
    door.fake.say_auth(True, 5)
    await until(lambda: door.calls.callers.state.enabled)


def test_a_token_is_asked_for_once_and_goes_before_every_command() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            for metadata in (GOOD, BEARER, GOOD):
                await put(channel, b"k", b"v", metadata=metadata)
            await get(channel, b"k", metadata=GOOD)
            identity = Caller("alice", 5).pack()
            assert [b"", *[identity] * 4] == door.fake.identities
            assert asked(door) == 1

    run(scenario)


def test_many_calls_at_once_with_an_unknown_token_ask_once() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            await asyncio.gather(*(put(channel, b"k%d" % i, b"v", metadata=GOOD) for i in range(20)))
            assert asked(door) == 1

    run(scenario)


def test_a_bad_token_fails_the_call_and_nothing_is_ordered() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            for token in ("nonsense", "xyz.9", ""):
                refused = await failure(put(channel, b"k", b"v", metadata=(("token", token),)))
                assert refused == (16, "etcdserver: invalid auth token")
            assert not any(op == Op.PUT for _, op in door.fake.seen)

    run(scenario)


def test_a_token_that_is_newer_than_this_member_is_asked_for_behind_what_was_ordered() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            door.fake.new_tokens["new.9"] = "bob"
            await put(channel, b"k", b"v", metadata=(("token", "new.9"),))
            assert [(Kind.LOCAL, Op.TOKEN), (Kind.READ, Op.TOKEN)] == door.fake.seen[:2]
            assert Caller("bob", 5).pack() == door.fake.identities[-1]

    run(scenario)


def test_of_several_tokens_the_first_counts() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            bad = ("token", "bad.1")
            await put(channel, b"k", b"v", metadata=(*GOOD, bad))
            assert await failure(put(channel, b"k", b"v", metadata=(bad, *GOOD))) == (
                16,
                "etcdserver: invalid auth token",
            )

    run(scenario)


def test_a_change_of_users_makes_every_memory_void() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            await put(channel, b"k", b"v", metadata=GOOD)
            del door.fake.tokens["abc.7"]
            door.fake.say_auth(True, 6)
            await until(lambda: door.calls.callers.state.revision == 6)
            assert await failure(put(channel, b"k", b"v", metadata=GOOD)) == (16, "etcdserver: invalid auth token")

    run(scenario)


def test_a_restart_of_storage_makes_every_memory_void() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await guarded(door)
            await put(channel, b"k", b"v", metadata=GOOD)
            epoch = door.calls.callers.epoch
            door.fake.stop_storage()
            door.fake.start_storage()
            await until(lambda: door.calls.callers.epoch > epoch)
            await put(channel, b"k", b"v", metadata=GOOD)
            assert asked(door) == 2

    run(scenario)


def test_while_auth_is_off_tokens_are_not_looked_at() -> None:
    async def scenario() -> None:
        async with worker() as door, door.channel() as channel:
            await put(channel, b"k", b"v", metadata=(("token", "nonsense"),))
            assert [UNJUDGED] == door.fake.identities

    run(scenario)


async def identify(callers: Callers, context: Context) -> tuple[int, str]:
    answer: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
    callers.identify(context, lambda code, message: answer.set_result((code, message)))
    return await answer


class Timers:
    """In place of the ring's: what is due is done when the test says so, however slow the machine is."""

    def __init__(self, door: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []
        self._now = door.ring.now
        monkeypatch.setattr(door.ring, "at", self._at)

    def _at(self, when: float, callback: Callable[..., None], *values: object) -> Callable[[], None]:
        one = (when - self._now(), partial(callback, *values))
        self.due.append(one)
        return lambda: self.due.remove(one)

    def end(self) -> float:
        """Let the only one that runs end; how many seconds it had, at most."""
        [(seconds, callback)] = self.due
        self.due.clear()
        callback()
        return seconds


def test_a_token_in_use_is_refreshed_and_one_at_rest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with worker() as door:
            callers = Callers(door.ring, token_ttl_s=80.0)
            await guarded_callers(door, callers)
            timers = Timers(door, monkeypatch)
            context = Context({"token": "abc.7"})
            assert await identify(callers, context) == (0, "")
            assert 0 < timers.end() <= 10.0, "an eighth"
            await until(lambda: asked(door) == 2)
            assert callers.recognize(Context({"token": "abc.7"})), "it is known and now in use again"
            timers.end()
            await until(lambda: asked(door) == 3)
            timers.end()
            assert not timers.due
            assert not callers.recognize(context)
            assert await identify(callers, context) == (0, "")
            assert asked(door) == 4

    run(scenario)


def test_a_token_that_ended_while_it_was_remembered_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with worker() as door:
            callers = Callers(door.ring, token_ttl_s=80.0)
            await guarded_callers(door, callers)
            timers = Timers(door, monkeypatch)
            context = Context({"token": "abc.7"})
            await identify(callers, context)
            del door.fake.tokens["abc.7"]
            known = callers.epoch
            timers.end()
            await until(lambda: callers.epoch == known + 2)  # the time that passed, and the refusal
            assert await identify(callers, context) == (16, "etcdserver: invalid auth token")

    run(scenario)


async def guarded_callers(door: Worker, callers: Callers) -> None:
    door.fake.tokens["abc.7"] = "alice"
    door.fake.say_auth(True, 5)
    await until(lambda: callers.state.enabled)


class Verifier:
    """Knows one token."""

    def __init__(self) -> None:
        self.asked = 0

    def verify(self, token: str, now_s: float) -> Caller:
        self.asked += 1
        if token != "jwt":
            raise CallFailed(errors.INVALID_AUTH_TOKEN)
        return Caller("alice", 3)


def test_a_jwt_is_verified_here_once_and_keeps_the_revision_of_its_login() -> None:
    async def scenario() -> None:
        async with worker() as door:
            verifier = Verifier()
            callers = Callers(door.ring, verifier)
            await guarded_callers(door, callers)
            for context in (Context({"token": "jwt"}), Context({"authorization": "Bearer jwt"})):
                assert await identify(callers, context) == (0, "")
                assert context.identity == Caller("alice", 3).pack()
            assert (1, 0) == (verifier.asked, asked(door))
            assert (await identify(callers, Context({"token": "x"})))[0] == errors.Code.UNAUTHENTICATED

    run(scenario)


@pytest.mark.parametrize("metadata", [{}, {"token": "nonsense"}])
def test_a_certificate_names_who_has_no_good_token(metadata: dict[str, str]) -> None:
    async def scenario() -> None:
        async with worker() as door:
            await guarded(door)
            context = Context(metadata, common_name="carol")
            assert await identify(door.calls.callers, context) == (0, "")
            assert context.identity == Caller("carol", 5).pack()

    run(scenario)


def test_a_good_token_is_stronger_than_a_certificate() -> None:
    async def scenario() -> None:
        async with worker() as door:
            await guarded(door)
            context = Context({"token": "abc.7"}, common_name="carol")
            await identify(door.calls.callers, context)
            assert context.identity == Caller("alice", 5).pack()

    run(scenario)
