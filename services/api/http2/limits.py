"""What one connection may ask of the server, and the meter that tells a busy client from a flooding one."""

from dataclasses import dataclass

from quorate.api.http2.frames import ENHANCE_YOUR_CALM, ConnectionFailure


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection; the defaults are etcd's where etcd has one."""

    message_bytes_max: int = 1_572_864 + 524_288  # a whole gRPC message: max-request-bytes and gRPC's overhead
    concurrent_streams_max: int = 0xFFFF_FFFF  # etcd: --max-concurrent-streams
    header_list_bytes_max: int = 65_536  # beyond it a request is answered 431, beyond four times it GOAWAY
    partial_bytes_max: int = 64 << 20  # bytes of unfinished requests held for one connection
    stream_window_bytes: int = 1 << 20  # receive window of a stream
    connection_window_bytes: int = 4 << 20  # receive window of the connection
    frame_bytes_max: int = 32_768  # largest DATA frame sent, if the peer allows as much; bounds how long others wait
    send_high_bytes: int = 1 << 20  # a stream with more than this queued is blocked
    send_low_bytes: int = 256 << 10  # and is writable again below this
    ping_min_time_s: float = 5.0  # etcd: --grpc-keepalive-min-time
    keepalive_interval_s: float = 7200.0  # etcd: --grpc-keepalive-interval
    keepalive_timeout_s: float = 20.0  # etcd: --grpc-keepalive-timeout


class Strain:
    """Counts frames that cost the server work and bring the client nothing: resets, settings, empty frames.

    A token bucket moved by `relax`: a client may spend BURST at once and RATE_PER_S for ever. An etcd client
    that cancels every call it makes stays far below; the floods of CVE-2019-9511 to 9518 and CVE-2023-44487
    do not.
    """

    BURST = 10_000
    RATE_PER_S = 1_000
    WINDOW_UPDATES_FREE = 20_000  # between two ticks, on top of what the traffic itself calls for

    __slots__ = ("spent", "window_updates")

    def __init__(self) -> None:
        self.spent = 0
        self.window_updates = 0

    def charge(self, cost: int, what: str) -> None:
        """Add `cost`. Raises ConnectionFailure when the client asked for too much."""
        self.spent += cost
        if self.spent > self.BURST:
            raise ConnectionFailure(ENHANCE_YOUR_CALM, f"too many {what} frames")

    def charge_window_update(self, frames_called_for: int) -> None:
        """Count one WINDOW_UPDATE against what was sent to this peer lately: `frames_called_for`."""
        self.window_updates += 1
        if self.window_updates > self.WINDOW_UPDATES_FREE + 4 * frames_called_for:
            raise ConnectionFailure(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")

    def relax(self, elapsed_s: float) -> None:
        """Give back what `elapsed_s` seconds allow."""
        self.spent = max(0, self.spent - int(self.RATE_PER_S * elapsed_s))
        self.window_updates = 0
