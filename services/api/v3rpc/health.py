"""grpc.health.v1.Health: the server as a whole, by the empty name, serves as long as this process does."""

from __future__ import annotations

from quorate.api.calling import CallStream, Done
from quorate.api.calls import Context, Responses, Route, StreamDone, StreamRoute
from quorate.api.ring import Ring
from quorate.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from quorate.wire import errors
from quorate.wire.errors import CallFailed

SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
SERVICE_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


class Health:
    """As in etcd, neither a missing leader nor an alarm changes the answer."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def routes(self) -> dict[str, Route]:
        return {"/grpc.health.v1.Health/Check": Route(self.check, serves_learner=True, is_open=True)}

    def streams(self) -> dict[str, StreamRoute]:
        return {"/grpc.health.v1.Health/Watch": StreamRoute(self.watch, serves_learner=True, is_lasting=True)}

    def check(self, body: bytes, context: Context, done: Done, expires_at: float | None) -> None:
        if HealthCheckRequest.FromString(body).service:
            raise CallFailed(errors.HEALTH_UNKNOWN_SERVICE)
        done(0, "", SERVING)

    def watch(self, context: Context, responses: Responses, done: StreamDone) -> CallStream:
        return _Watch(self._ring, responses)


class _Watch:
    """Says the status once; it does not change while there is somebody to say it."""

    def __init__(self, ring: Ring, responses: Responses) -> None:
        self._ring = ring
        self._responses = responses
        self._is_over = False

    def send(self, body: bytes) -> None:
        is_known = not HealthCheckRequest.FromString(body).service
        self._ring.soon(self._say, SERVING if is_known else SERVICE_UNKNOWN)

    def half_close(self) -> None:
        """The client has nothing more to ask; the answer stays open."""

    def cancel(self) -> None:
        self._is_over = True

    def pause(self) -> None:
        """One answer never fills a stream."""

    def resume(self) -> None:
        """See `pause`."""

    def _say(self, status: bytes) -> None:
        if not self._is_over:
            self._responses.send(status)
