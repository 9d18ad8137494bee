"""The examples of docs/clients.md are Python, and the one that counts does count."""

import re
from pathlib import Path
from typing import Any

from quorate.client import Client

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "clients.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def test_every_example_compiles() -> None:
    assert len(EXAMPLES) >= 6
    for example in EXAMPLES:
        compile(example, str(DOCUMENT), "exec")


def test_the_counter_counts(client: Client) -> None:
    names: dict[str, Any] = {}
    exec(next(example for example in EXAMPLES if "def add_one" in example), names)
    client.put("counter", "0")
    for _ in range(3):
        names["add_one"](client, "counter")
    assert client.get("counter").kvs[0].value == b"3"
