"""HTTP/2 against a live node: the conversations of `http2`, over TCP."""

from __future__ import annotations

import contextlib

from tests.fuzzing import of_http2
from tests.fuzzing.node import live, rest_of
from tests.fuzzing.node import world as world
from tests.fuzzing.octets import Octets


def seeds() -> list[bytes]:
    """Those of the engine."""
    return of_http2.seeds()


def run(data: bytes) -> None:
    """Say it and hang up: the node says goodbye in whole frames, and serves others."""
    octets = Octets(data)
    said = of_http2.spoken(octets)
    with live().client() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(said)
        rest_of(connection)
    live().count()
