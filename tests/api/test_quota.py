"""The share of the quota that api judges."""

from typing import cast

import pytest

from quorate.api.quota import NEAR_BYTES, Quota
from quorate.api.ring import Ring
from quorate.wire import errors
from quorate.wire.identity import NODE
from quorate.wire.messages import SPACE, UNBOUNDED, Kind, Op, Part


class RingOfStorage:
    """The part of a ring that quota uses; remembers what storage was asked."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[Part, Kind], object] = {}
        self.local = "the lane of this member"
        self.asked: list[tuple[object, ...]] = []

    def on_message(self, part: Part, kind: Kind, handler: object) -> None:
        self.handlers[part, kind] = handler

    def add(self, *asked: object) -> None:
        self.asked.append(asked)


def test_a_write_that_cannot_fit_is_refused_when_storage_has_raised_the_alarm() -> None:
    ring = RingOfStorage()
    quota = Quota(cast(Ring, ring))
    learn = ring.handlers[Part.STORAGE, Kind.SPACE]
    assert callable(learn)
    told: list[object] = []

    def refuses(cost_bytes: int) -> bool:
        return quota.refuses(cost_bytes, lambda *outcome: told.append(outcome), None)

    assert not refuses(10**12)
    learn(SPACE.pack(1000))
    assert quota.is_near
    assert not refuses(999)
    assert not refuses(0)
    assert [] == ring.asked
    assert refuses(1000)
    ((lane, op, body, raised, expires_at, identity),) = ring.asked
    assert (ring.local, Op.OUT_OF_SPACE, b"", None, NODE) == (lane, op, body, expires_at, identity)
    assert [] == told
    assert callable(raised)
    raised(errors.TIMEOUT.code, errors.TIMEOUT.text, b"")
    assert [(errors.NO_SPACE.code, errors.NO_SPACE.text, b"")] == told


@pytest.mark.parametrize(
    ("left", "near"), [(UNBOUNDED, False), (NEAR_BYTES, False), (NEAR_BYTES - 1, True), (-5, True)]
)
def test_costs_are_looked_at_close_to_the_end_only(left: int, near: bool) -> None:
    ring = RingOfStorage()
    quota = Quota(cast(Ring, ring))
    learn = ring.handlers[Part.STORAGE, Kind.SPACE]
    assert callable(learn)
    learn(SPACE.pack(left))
    assert near is quota.is_near
