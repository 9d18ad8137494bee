"""/health, /livez and /readyz: is this member of use, to whom, and if not, why not.

/health follows etcd's order: alarms, leader, one read. The others run named checks, one of them by its own path.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from quorate.api.calling import Failed
from quorate.api.metrics import Metrics
from quorate.api.node_view import NodeView
from quorate.proto import rpc_pb2

TAG: Final = "Member"
Check = Callable[[], Awaitable[str]]  # what is wrong; empty for nothing

_NO_SNIFF: Final = {"X-Content-Type-Options": "nosniff"}
_ALARM_MARK: Final = "alarm:"


def router(node: NodeView, metrics: Metrics) -> APIRouter:
    """The pages."""
    pages = APIRouter(tags=[TAG], default_response_class=PlainTextResponse)
    checks = Checks(node)

    @pages.get(
        "/health",
        summary="Whether this member serves clients",
        responses={
            200: _text('{"health":"true","reason":""}', "It does."),
            503: _text('{"health":"false","reason":"..."}', "It does not."),
        },
    )
    async def health(
        exclude: Annotated[list[str], Query(description="Alarms to leave out: NOSPACE, CORRUPT.")] = [],  # noqa: B006 - FastAPI copies it
        serializable: Annotated[str, Query(description="`true`: do not ask for a leader and a quorum.")] = "",
    ) -> PlainTextResponse:
        reason = await why_unhealthy(node, frozenset(exclude), serializable == "true")
        metrics.count_health(healthy=not reason)
        if reason:
            return PlainTextResponse(f'{{"health":"false","reason":"{reason}"}}\n', 503, _NO_SNIFF)
        return PlainTextResponse('{"health":"true","reason":""}')

    _add_family(pages, "/livez", "Whether this member is alive; 503 is a reason to restart it", checks.live, metrics)
    _add_family(pages, "/readyz", "Whether this member is ready to be sent requests", checks.ready, metrics)
    return pages


def _text(example: str, description: str) -> dict[str, object]:
    return {"content": {"text/plain": {"example": example}}, "description": description}


PASSED: Final = _text("ok\n", "All checks passed.")
FAILED: Final = _text("[-]name failed: reason\n", "A line for each check, and why it failed.")


async def why_unhealthy(node: NodeView, exclude: frozenset[str], serializable: bool) -> str:
    """The first reason etcd would give; empty for a healthy member."""
    try:
        status = await node.status()
    except Failed as failed:
        return f"RANGE ERROR:{failed.message}"
    for alarm in alarms(status):
        if alarm not in exclude:
            return f"ALARM {alarm if alarm in ('NOSPACE', 'CORRUPT') else 'UNKNOWN'}"
    if not serializable and status.leader == 0:
        return "RAFT NO LEADER"
    try:
        await node.read(serializable)
    except Failed as failed:
        return f"RANGE ERROR:{failed.message}"
    return ""


def alarms(status: rpc_pb2.StatusResponse) -> list[str]:
    """The alarms among the errors of a status, where each is `memberID:<decimal> alarm:<name> `."""
    return [error.partition(_ALARM_MARK)[2].strip() for error in status.errors if _ALARM_MARK in error]


class Checks:
    """The named checks of etcd's /livez and /readyz."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self.live: Mapping[str, Check] = {"serializable_read": self._serializable_read}
        self.ready: Mapping[str, Check] = {
            "data_corruption": self._data_corruption,
            "serializable_read": self._serializable_read,
            "linearizable_read": self._linearizable_read,
            "non_learner": self._non_learner,
        }

    async def _serializable_read(self) -> str:
        return await self._read(serializable=True)

    async def _linearizable_read(self) -> str:
        return await self._read(serializable=False)

    async def _read(self, serializable: bool) -> str:
        try:
            await self._node.read(serializable)
        except Failed as failed:
            return failed.message
        return ""

    async def _data_corruption(self) -> str:
        return await self._by_status(lambda status: "alarm activated: CORRUPT" if "CORRUPT" in alarms(status) else "")

    async def _non_learner(self) -> str:
        return await self._by_status(lambda status: "not supported for learner" if status.isLearner else "")

    async def _by_status(self, judge: Callable[[rpc_pb2.StatusResponse], str]) -> str:
        try:
            return judge(await self._node.status())
        except Failed as failed:
            return failed.message


def _add_family(pages: APIRouter, path: str, summary: str, checks: Mapping[str, Check], metrics: Metrics) -> None:
    kind = path[1:]

    @pages.get(path, summary=summary, responses={200: PASSED, 503: FAILED})
    async def all_checks(
        exclude: Annotated[list[str], Query(description=f"Checks to leave out: {', '.join(checks)}.")] = [],  # noqa: B006 - FastAPI copies it
        verbose: Annotated[str | None, Query(description="Show each check.")] = None,
    ) -> PlainTextResponse:
        chosen = {name: check for name, check in checks.items() if name not in exclude}
        left_out = [f"[+]{name} excluded: ok\n" for name in checks if name in exclude]
        return await _run(kind, chosen, left_out, verbose is not None, metrics)

    one: dict[int | str, dict[str, Any]] = {
        200: PASSED,
        404: _text("404 page not found\n", "There is no check of that name."),
        503: FAILED,
    }

    @pages.get(path + "/{check}", summary=f"One check of {path}", responses=one)
    async def one_check(
        check: Annotated[str, Path(description=f"One of {', '.join(checks)}.")], verbose: str | None = None
    ) -> PlainTextResponse:
        if check not in checks:
            raise HTTPException(404)
        return await _run(kind, {check: checks[check]}, [], verbose is not None, metrics)


async def _run(
    kind: str, checks: Mapping[str, Check], left_out: list[str], verbose: bool, metrics: Metrics
) -> PlainTextResponse:
    lines = []
    failed = False
    for name, check in checks.items():
        wrong = await check()
        metrics.count_check(kind, name, passed=not wrong)
        failed = failed or bool(wrong)
        lines.append(f"[-]{name} failed: {wrong}\n" if wrong else f"[+]{name} ok\n")
    lines += left_out
    if failed:
        return PlainTextResponse("".join(lines), 503, _NO_SNIFF)
    return PlainTextResponse("".join([*(lines if verbose else []), "ok\n"]), 200, _NO_SNIFF)
