"""A discovery service that speaks etcd's v2 keys API over HTTP: --discovery URL."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final, NoReturn
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from quorate.discovery.failures import DUPLICATE, SIZE_NOT_FOUND, DiscoveryFailed, ServiceLost
from quorate.discovery.registry import Listing, Registered

REQUEST_S: Final = 5.0
WATCH_S: Final = 300.0
INDEX_HEADER: Final = "X-Etcd-Index"
CONFIG: Final = "_config"

Answer = tuple[dict[str, Any], int]  # the document and the service's index


class V2Registry:
    """The directory at one URL."""

    def __init__(self, url: str, proxy: str = "") -> None:
        self._url = url.rstrip("/")
        proxies = {"http": proxy, "https": proxy} if proxy else None
        self._opener: OpenerDirector = build_opener(ProxyHandler(proxies))

    async def size(self) -> str:
        try:
            document, _ = await self._get(f"{self._url}/{CONFIG}/size")
        except HTTPError as error:
            _judge(error, HTTPStatus.NOT_FOUND, SIZE_NOT_FOUND)
        return str(document["node"].get("value", ""))

    async def listing(self) -> Listing:
        try:
            document, index = await self._get(self._url)
        except HTTPError as error:
            _judge(error, HTTPStatus.NOT_FOUND, SIZE_NOT_FOUND)
        return Listing(_members(document["node"].get("nodes", [])), index)

    async def register(self, member_id: str, contents: str) -> None:
        body = urlencode({"value": contents}).encode()
        request = Request(f"{self._url}/{member_id}?prevExist=false", body, method="PUT")  # noqa: S310 - the operator's URL
        request.add_header("Content-Type", "application/x-www-form-urlencoded")
        try:
            await asyncio.to_thread(self._open, request, REQUEST_S)
        except HTTPError as error:
            _judge(error, HTTPStatus.PRECONDITION_FAILED, DUPLICATE)

    async def newcomers(self, moment: int) -> Listing:
        query = urlencode({"wait": "true", "recursive": "true", "waitIndex": moment + 1})
        try:
            document, _ = await self._get(f"{self._url}?{query}", WATCH_S)
        except HTTPError as error:
            _judge(error, 0, "")
        node = document.get("node", {})
        if document.get("action") not in ("create", "set", "update"):
            return Listing((), node.get("modifiedIndex", moment))
        return Listing(_members([node]), node["modifiedIndex"])

    async def _get(self, url: str, timeout_s: float = REQUEST_S) -> Answer:
        return await asyncio.to_thread(self._open, Request(url), timeout_s)  # noqa: S310 - the operator's URL

    def _open(self, request: Request, timeout_s: float) -> Answer:
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                document = json.loads(answer.read() or b"{}")
                return document, int(answer.headers.get(INDEX_HEADER, 0))
        except HTTPError:
            raise
        except (OSError, ValueError) as error:
            raise ServiceLost(str(error)) from error


def _members(nodes: list[dict[str, Any]]) -> tuple[Registered, ...]:
    named = [(node["key"].rpartition("/")[2], node) for node in nodes]
    return tuple(
        Registered(name, node.get("value", ""), node["createdIndex"]) for name, node in named if name != CONFIG
    )


def _judge(error: HTTPError, status: int, sentence: str) -> NoReturn:
    """A refusal the flags' author has to know of, else a service that may come back."""
    if error.code == status:
        raise DiscoveryFailed(sentence) from error
    raise ServiceLost(f"status {error.code}") from error
