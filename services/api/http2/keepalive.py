"""Pings: which ones a client may send, and the server's own to connections that have fallen silent."""

from typing import Final

from quorate.api.http2 import frames
from quorate.api.http2.frames import ConnectionFailure
from quorate.api.http2.limits import Limits

PING_STRIKES_MAX: Final = 2
IDLE_PING_MIN_S: Final = 7_200.0  # between pings on a connection without streams

OUR_PING: Final = b"keepaliv"
DRAIN_PING: Final = b"draining"


class Keepalive:
    """Times are seconds of the host's monotonic clock."""

    __slots__ = ("_last_ping", "_limits", "_strikes", "heard_at", "probed_at")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._last_ping = -IDLE_PING_MIN_S
        self._strikes = 0
        self.heard_at = now  # when the peer last said anything
        self.probed_at: float | None = None  # when our unanswered ping left

    def admit_ping(self, now: float, *, has_streams: bool, answered: bool) -> None:
        """Count a client's ping. Raises ConnectionFailure `too_many_pings` at the third one too early.

        A ping after the server has sent something is always fine: clients measure bandwidth with them.
        The rule is gRPC's proposal A8 with etcd's minimum time.
        """
        early_before = self._last_ping + (self._limits.ping_min_time_s if has_streams else IDLE_PING_MIN_S)
        self._last_ping = now
        if answered:
            self._strikes = 0
            return
        if now < early_before:
            self._strikes += 1
        if self._strikes > PING_STRIKES_MAX:
            raise ConnectionFailure(frames.ENHANCE_YOUR_CALM, "too_many_pings")

    def probe(self, now: float) -> bool:
        """True when a ping is due. Raises ConnectionFailure when the last one went unanswered for too long."""
        if self.probed_at is not None:
            if self.heard_at > self.probed_at:
                self.probed_at = None
            elif now - self.probed_at >= self._limits.keepalive_timeout_s:
                raise ConnectionFailure(frames.NO_ERROR, "keepalive ping was not answered")
            else:
                return False
        if now - self.heard_at < self._limits.keepalive_interval_s:
            return False
        self.probed_at = now
        return True
