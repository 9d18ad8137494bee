"""The pages of the front door over a fake node and a store of plain keys."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from quorate.api.metrics import Metrics
from quorate.api.pages import make_pages
from tests.api.exchange import request
from tests.fakes.calls import FakeCalls
from tests.fakes.node_view import FakeNode

VALUE_BYTES_MAX = 1000


@dataclass
class Pages:
    """The application and what a test may turn on it."""

    calls: FakeCalls = field(default_factory=FakeCalls)
    node: FakeNode = field(default_factory=FakeNode)
    metrics: Metrics = field(default_factory=Metrics)
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.app = make_pages(self.calls, self.node, self.metrics, VALUE_BYTES_MAX)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return request(self.app, method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)


@pytest.fixture
def pages() -> Pages:
    return Pages()
