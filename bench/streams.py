"""Client streams of the load generator: many messages each way on one call, over many connections."""

import select
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench import engine, http2, messages

CREATES_IN_FLIGHT: Final = 100
RECV_BYTES: Final = 1 << 18
STALL_S: Final = 60.0


class Stream:
    """One client stream on a connection of its own, and the message bytes it has received."""

    def __init__(self, endpoint: tuple[str, int], path: str, poller: select.epoll) -> None:
        self._parts: list[bytes] = []
        client = http2.Connection(path, f"{endpoint[0]}:{endpoint[1]}", lambda _, data: self._parts.append(data))
        self.client = client
        self.channel = engine.connect(*endpoint, client)
        self.poller = poller
        self.fd = self.channel.sock.fileno()
        poller.register(self.fd, select.EPOLLIN)
        self.stream_id, opening = client.open_stream()
        engine.send(self.channel, opening, poller)
        self.rest = b""

    def send(self, message_list: list[bytes]) -> None:
        """Send messages in one write."""
        frames = [self.client.stream_data(self.stream_id, http2.grpc_message(m)) for m in message_list]
        engine.send(self.channel, self.client.take_out() + b"".join(frames), self.poller)

    def receive(self) -> bytes:
        """Everything that was received and not yet taken, gRPC prefixes included."""
        data = self.channel.sock.recv(RECV_BYTES)
        if not data:
            raise http2.ProtocolError("closed by the server")
        self.client.receive(data)
        if self.client.errors:
            raise http2.ProtocolError(self.client.first_error)
        if self.client.out:
            engine.send(self.channel, self.client.take_out(), self.poller)
        received = self.rest + b"".join(self._parts)
        self._parts.clear()
        self.rest = b""
        return received

    def messages(self) -> Iterator[bytes]:
        """The whole messages that have arrived; what is left of another waits."""
        received = self.receive()
        position = 0
        while position + 5 <= len(received):
            following = position + 5 + int.from_bytes(received[position + 1 : position + 5])
            if following > len(received):
                break
            yield received[position + 5 : following]
            position = following
        self.rest = received[position:]


class Streams:
    """Streams of the same method over several connections, dealt out over the endpoints."""

    def __init__(self, endpoints: list[tuple[str, int]], path: str, count: int) -> None:
        self.poller = select.epoll()
        self.all = [Stream(endpoints[n % len(endpoints)], path, self.poller) for n in range(count)]
        self.also: dict[int, Callable[[], None]] = {}  # other sockets on the poller, and who reads them
        self._by_fd = {stream.fd: stream for stream in self.all}

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_: object) -> None:
        self.poller.close()
        for stream in self.all:
            stream.channel.sock.close()

    def readable(self, timeout: float = 0.05) -> Iterator[Stream]:
        """The streams something has arrived on; ones that could not send everything continue to."""
        for fd, event in self.poller.poll(timeout):
            if fd in self.also:
                self.also[fd]()
                continue
            stream = self._by_fd[fd]
            if event & select.EPOLLOUT:
                engine.flush(stream.channel, self.poller)
            if event & ~select.EPOLLOUT:
                yield stream

    def watch(self, keys: list[bytes], start_revision: int = 0) -> None:
        """Create one watcher a key, dealt out over the streams; returns when all are created."""
        pending = {
            stream.fd: iter(
                [messages.watch_create(key, start_revision=start_revision) for key in keys[n :: len(self.all)]]
            )
            for n, stream in enumerate(self.all)
        }
        for stream in self.all:
            stream.send([m for _, m in zip(range(CREATES_IN_FLIGHT), pending[stream.fd], strict=False)])
        created = 0
        deadline = time.monotonic() + STALL_S
        while created < len(keys):
            for stream in self.readable():
                answered = sum(messages.first_number(message, 3) for message in stream.messages())
                created += answered
                more = [m for _, m in zip(range(answered), pending[stream.fd], strict=False)]
                if more:
                    stream.send(more)
            if time.monotonic() > deadline:
                raise http2.ProtocolError(f"{created} of {len(keys)} watchers created")
