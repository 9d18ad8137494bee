"""A discovery service that speaks etcd's v2 keys API over HTTP: --discovery URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, NoReturn, TypeVar
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
T = TypeVar("T")


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
        return size_of(document)

    async def listing(self) -> Listing:
        try:
            document, index = await self._get(self._url)
        except HTTPError as error:
            _judge(error, HTTPStatus.NOT_FOUND, SIZE_NOT_FOUND)
        return listing_of(document, index)

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
        return news_of(document, moment)

    async def _get(self, url: str, timeout_s: float = REQUEST_S) -> Answer:
        return await asyncio.to_thread(self._open, Request(url), timeout_s)  # noqa: S310 - the operator's URL

    def _open(self, request: Request, timeout_s: float) -> Answer:
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return document_of(answer.read()), int(answer.headers.get(INDEX_HEADER, 0))
        except HTTPError:
            raise
        except (OSError, ValueError) as error:
            raise ServiceLost(str(error)) from error


def document_of(text: bytes) -> dict[str, Any]:
    """An answer's body; ValueError for what is no JSON object."""
    try:
        document = json.loads(text or b"{}")
    except RecursionError:
        document = None
    if not isinstance(document, dict):
        raise ValueError("the answer is no JSON object")
    return document


def size_of(document: dict[str, Any]) -> str:
    """The value of the size key. ServiceLost, here and below, for the answer of something else."""
    return _read(lambda: str(document["node"].get("value", "")))


def listing_of(document: dict[str, Any], index: int) -> Listing:
    """Who is in the directory."""
    return _read(lambda: Listing(_members(document["node"].get("nodes", [])), index))


def news_of(document: dict[str, Any], moment: int) -> Listing:
    """Who came after `moment`."""

    def read() -> Listing:
        node = document.get("node", {})
        if document.get("action") not in ("create", "set", "update"):
            return Listing((), int(node.get("modifiedIndex", moment)))
        return Listing(_members([node]), int(node["modifiedIndex"]))

    return _read(read)


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ServiceLost("the answer is none of a discovery service") from error


def _members(nodes: list[dict[str, Any]]) -> tuple[Registered, ...]:
    named = [(node["key"].rpartition("/")[2], node) for node in nodes]
    return tuple(
        Registered(name, str(node.get("value", "")), int(node["createdIndex"]))
        for name, node in named
        if name != CONFIG
    )


def _judge(error: HTTPError, status: int, sentence: str) -> NoReturn:
    """A refusal the flags' author has to know of, else a service that may come back."""
    if error.code == status:
        raise DiscoveryFailed(sentence) from error
    raise ServiceLost(f"status {error.code}") from error
