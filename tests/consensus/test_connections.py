"""Dialling a member."""

import socket
import threading
import time
from http import HTTPStatus

import pytest

from quorate.consensus.connections import Refused, dial, read_head
from quorate.consensus.handshake import Hello, pack_response


def test_a_member_dials_from_the_address_it_was_given() -> None:
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, address = listener.accept()
            with connection:
                seen.append(address[0])
                read_head(connection, time.monotonic() + 10)
                connection.sendall(pack_response(HTTPStatus.GONE, b"", "text/plain", 1))

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Refused):
            dial(url, Hello("urgent", 1, 2, 3), lambda: None, lambda *_: None, 10.0, "127.0.0.2")  # type: ignore[arg-type,return-value]
        thread.join()
    assert seen == ["127.0.0.2"]
