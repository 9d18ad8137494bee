"""The share of the quota that api judges."""

from types import SimpleNamespace
from typing import cast

import pytest

from quorate.api.quota import NEAR_BYTES, Quota
from quorate.api.ring import Ring
from quorate.wire import errors
from quorate.wire.errors import CallFailed
from quorate.wire.messages import SPACE, UNBOUNDED, Kind, Part


class RingOfStorage:
    """The part of a ring that quota uses; remembers what storage was told."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[Part, Kind], object] = {}
        self.told: list[int] = []
        self.storage = SimpleNamespace(send=self.told.append)

    def on_message(self, part: Part, kind: Kind, handler: object) -> None:
        self.handlers[part, kind] = handler

    def flush_soon(self) -> None:
        pass


def test_a_write_that_cannot_fit_is_refused_and_storage_is_told_to_raise_the_alarm() -> None:
    ring = RingOfStorage()
    quota = Quota(cast(Ring, ring))
    learn = ring.handlers[Part.STORAGE, Kind.SPACE]
    assert callable(learn)
    quota.check(10**12)
    learn(SPACE.pack(1000))
    assert quota.is_near
    quota.check(999)
    quota.check(0)
    assert [] == ring.told
    with pytest.raises(CallFailed) as failure:
        quota.check(1000)
    assert errors.NO_SPACE == failure.value.error
    assert [Kind.SPACE] == ring.told


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
