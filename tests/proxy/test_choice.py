"""Which address the gateway's next connection goes to."""

import random
from collections import Counter

from quorate.node.srv import Target
from quorate.proxy.tcp import Choice


def target(host: str, priority: int = 0, weight: int = 0) -> Target:
    return Target(host, 2379, priority, weight, secure=False)


def hosts(choice: Choice, count: int) -> Counter[str]:
    picked = [choice.next() for _ in range(count)]
    return Counter(remote.target.host for remote in picked if remote is not None)


def test_addresses_without_weights_take_turns() -> None:
    assert hosts(Choice([target("a"), target("b"), target("c")], random.Random(1)), 9) == {"a": 3, "b": 3, "c": 3}


def test_only_the_best_priority_that_answers_is_used() -> None:
    choice = Choice([target("a", priority=1), target("b", priority=2)], random.Random(1))
    assert hosts(choice, 4) == {"a": 4}
    choice.remotes[0].is_active = False
    assert hosts(choice, 4) == {"b": 4}


def test_weights_share_the_connections_and_zero_gets_very_few() -> None:
    choice = Choice([target("a", weight=3), target("b", weight=1), target("z")], random.Random(1))
    found = hosts(choice, 4000)
    assert 2.5 < found["a"] / found["b"] < 3.6
    assert 0 < found["z"] < 100


def test_nothing_is_chosen_when_nothing_answers() -> None:
    choice = Choice([target("a")], random.Random(1))
    choice.remotes[0].is_active = False
    assert choice.next() is None
