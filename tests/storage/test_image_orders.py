"""What consensus orders of images, in the loop with its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest

from quorate.storage import image_orders, snapshot
from quorate.storage.database import Database
from quorate.wire.messages import IMAGE, Kind
from tests.storage.test_service import Ring, put, ring

__all__ = ["ring"]


def test_an_image_is_taken_and_another_one_installed_in_its_turn(ring: Ring) -> None:
    ring.entry(put(b"a", b"1"))
    ring.consensus.channel.send(Kind.IMAGE_TAKE)
    ring.until(lambda: ring.consensus.of(Kind.IMAGE_TAKEN))
    (body,) = ring.consensus.of(Kind.IMAGE_TAKEN)
    assert (1, 5) == IMAGE.unpack_from(body)
    path = Path(body[IMAGE.size :].decode())
    ring.consensus.channel.send(Kind.IMAGE_INSTALL, body)
    ring.until(lambda: ring.service.is_stopping)
    assert path == ring.service.images.to_install


def test_an_image_that_there_was_no_room_for_is_taken_later(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[Database] = []
    take = snapshot.take

    def full_at_first(database: Database) -> snapshot.Image:
        attempts.append(database)
        if len(attempts) == 1:
            raise OSError("no space left on device")
        return take(database)

    monkeypatch.setattr(snapshot, "take", full_at_first)
    monkeypatch.setattr(image_orders, "RETRY_SECONDS", 0.05)
    ring.entry(put(b"a", b"1"))
    ring.consensus.channel.send(Kind.IMAGE_TAKE)
    ring.until(lambda: ring.consensus.of(Kind.IMAGE_TAKEN))
    assert 2 == len(attempts)
