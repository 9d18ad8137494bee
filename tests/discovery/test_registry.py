"""Joining by a list that others write too, against a list in memory."""

import asyncio
from dataclasses import dataclass, field

import pytest

from quorate.discovery import registry
from quorate.discovery.failures import FULL, INVALID_URL, SIZE_BAD, SIZE_NOT_FOUND, DiscoveryFailed, ServiceLost
from quorate.discovery.registry import Listing, Registered


@dataclass
class Shelf:
    """A discovery service in memory; `losses` calls fail first."""

    size_text: str | None = "3"
    members: list[Registered] = field(default_factory=list)
    losses: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def size(self) -> str:
        if self.losses:
            self.losses -= 1
            raise ServiceLost("away")
        if self.size_text is None:
            raise DiscoveryFailed(SIZE_NOT_FOUND)
        return self.size_text

    async def listing(self) -> Listing:
        return Listing(tuple(self.members), len(self.members))

    async def register(self, member_id: str, contents: str) -> None:
        if member_id not in [member.member_id for member in self.members]:
            self.members.append(Registered(member_id, contents, len(self.members) + 1))
        self.changed.set()

    async def newcomers(self, moment: int) -> Listing:
        while len(self.members) == moment:
            self.changed.clear()
            await self.changed.wait()
        return Listing(tuple(self.members[moment:]), len(self.members))


def url(name: str) -> str:
    return f"{name}=http://{name}:2380"


def joined(shelf: Shelf, *names: str) -> list[str | BaseException]:
    async def together() -> list[str | BaseException]:
        return list(
            await asyncio.gather(*(registry.join(shelf, name, url(name)) for name in names), return_exceptions=True)
        )

    return asyncio.run(together())


def test_all_founders_get_the_same_list_in_the_order_in_which_they_came() -> None:
    assert joined(Shelf(), "b", "a", "c") == ["b=http://b:2380,a=http://a:2380,c=http://c:2380"] * 3


def test_who_comes_after_the_last_founder_is_refused_and_a_founder_may_come_again() -> None:
    shelf = Shelf("2")
    joined(shelf, "a", "b")
    late, again = joined(shelf, "c", "a")
    assert str(late) == FULL
    assert again == "a=http://a:2380,b=http://b:2380"
    assert len(shelf.members) == 2


@pytest.mark.parametrize(
    ("size", "sentence"), [(None, SIZE_NOT_FOUND), ("", SIZE_BAD), ("0", SIZE_BAD), ("-1", SIZE_BAD), ("x", SIZE_BAD)]
)
def test_without_a_size_there_is_no_cluster(size: str | None, sentence: str) -> None:
    (refused,) = joined(Shelf(size), "a")
    assert isinstance(refused, DiscoveryFailed)
    assert str(refused) == sentence


def test_a_name_without_url_is_refused() -> None:
    shelf = Shelf("2", [Registered("x", "nonsense", 1)])
    (refused,) = joined(shelf, "a")
    assert str(refused) == INVALID_URL


def test_a_service_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    assert joined(Shelf("1", losses=10), "a") == [url("a")]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]


def test_a_member_that_wrote_twice_counts_once() -> None:
    twice = [Registered("a", url("a"), 1), Registered("b", url("b"), 2), Registered("a", url("a"), 3)]
    assert [member.position for member in registry.merged(twice)] == [1, 2]
