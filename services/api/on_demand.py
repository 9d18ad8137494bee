"""An application that is loaded when somebody first asks it something.

FastAPI, pydantic and the libraries below them take 20 MiB and a third of a second: a node that serves gRPC and the JSON
gateway, which is most of what etcd's clients use, does without. They are loaded in a thread, so that calls go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module

from quorate.api.asgi import App, Receive, Scope, Send


class OnDemand:
    """The application that `make` makes, once, after `module` was imported."""

    def __init__(self, module: str, make: Callable[[], App]) -> None:
        self._module = module
        self._make = make
        self._made: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            await asyncio.to_thread(import_module, self._module)
        if self._made is None:
            self._made = self._make()
        await self._made(scope, receive, send)
