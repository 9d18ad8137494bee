"""Profiles of an api worker, read back field by field as `go tool pprof` would."""

import gzip
import threading
import urllib.error
import urllib.request
from collections import Counter

import pytest

from bench import messages
from quorate.api import profiles
from quorate.wire import varints
from tests.support.cluster import quorate_cluster


def strings(profile: bytes) -> list[bytes]:
    return [value for field, value in messages.fields(profile) if field == 6 and isinstance(value, bytes)]


def test_a_profile_names_functions_and_how_long_they_were_seen() -> None:
    stack = (("inner", "a.py", 3), ("outer", "b.py", 300))
    packed = profiles.pack(Counter({stack: 5}), 1, 2)
    assert strings(packed) == [b"", b"samples", b"count", b"wall", b"nanoseconds", b"inner", b"a.py", b"outer", b"b.py"]
    (sample,) = [value for field, value in messages.fields(packed) if field == 2]
    assert isinstance(sample, bytes)
    assert list(messages.fields(sample)) == [(1, b"\x01\x02"), (2, b"\x05" + varints.varint(50_000_000))]
    assert len([field for field, _ in messages.fields(packed) if field in (4, 5)]) == 4


def test_a_recording_sees_what_other_threads_do() -> None:
    over = threading.Event()

    def waits_for_the_profile() -> None:
        over.wait(20)

    thread = threading.Thread(target=waits_for_the_profile)
    thread.start()
    try:
        profile = gzip.decompress(profiles.record(0.1))
    finally:
        over.set()
        thread.join()
    assert any(b"waits_for_the_profile" in word for word in strings(profile))


def test_pages_of_a_node_are_there_when_asked_for() -> None:
    with quorate_cluster(1, "--enable-pprof") as cluster:
        base = f"http://{cluster.endpoints[0]}/debug/pprof"

        def page(path: str) -> bytes:
            with urllib.request.urlopen(f"{base}/{path}", timeout=30) as answer:
                octets: bytes = answer.read()
                return octets

        assert strings(gzip.decompress(page("profile?seconds=0.2")))
        assert b"MainThread" in page("goroutine")
        assert b"quorate.api" in page("cmdline")
        assert b"profile" in page("")
        with pytest.raises(urllib.error.HTTPError):
            page("heap")
