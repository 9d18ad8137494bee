"""Faults of the wires between members: every shape of partition, and wires that are slow, lossy or cut now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from itertools import permutations

from tests.chaos.cluster import Battlefield
from tests.chaos.faults import fault, several, victim
from tests.chaos.links import Rule

Pair = tuple[int, int]


def everyone(field: Battlefield) -> list[Pair]:
    return list(permutations(range(len(field.nodes)), 2))


async def during(field: Battlefield, what: str, pairs: Iterable[Pair], rule: Rule, seconds: float) -> None:
    """These links follow the rule for so long."""
    pairs = list(pairs)
    field.note(f"{what}: {' '.join(f'{a}>{b}' for a, b in pairs)}")
    for pair in pairs:
        field.network.link(*pair).add(rule)
    try:
        await asyncio.sleep(seconds)
    finally:
        for pair in pairs:
            field.network.link(*pair).remove(rule)
        field.note(f"{what} is over")


async def _number(field: Battlefield, dice: random.Random, leads: bool) -> int:
    leader = await field.leader(1.0)
    others = [number for number, node in enumerate(field.nodes) if node is not leader]
    return field.nodes.index(leader) if leads and leader is not None else dice.choice(others)


def _around(field: Battlefield, number: int) -> list[Pair]:
    return [pair for pair in everyone(field) if number in pair]


@fault("isolate the leader", several)
async def isolate_leader(field: Battlefield, dice: random.Random, seconds: float) -> None:
    number = await _number(field, dice, True)
    await during(field, "isolated", _around(field, number), Rule(cut=True), seconds)


@fault("isolate a follower", several)
async def isolate_follower(field: Battlefield, dice: random.Random, seconds: float) -> None:
    number = await _number(field, dice, False)
    await during(field, "isolated", _around(field, number), Rule(cut=True), seconds)


@fault("one way: a member is not heard", several)
async def not_heard(field: Battlefield, dice: random.Random, seconds: float) -> None:
    number = field.nodes.index(await victim(field, dice))
    await during(field, "not heard", [p for p in everyone(field) if p[0] == number], Rule(cut=True), seconds)


@fault("one way: a member does not hear", several)
async def does_not_hear(field: Battlefield, dice: random.Random, seconds: float) -> None:
    number = field.nodes.index(await victim(field, dice))
    await during(field, "does not hear", [p for p in everyone(field) if p[1] == number], Rule(cut=True), seconds)


@fault("bridge: two members do not see each other", several)
async def bridge(field: Battlefield, dice: random.Random, seconds: float) -> None:
    a, b = dice.sample(range(len(field.nodes)), 2)
    await during(field, "bridge", [(a, b), (b, a)], Rule(cut=True), seconds)


@fault("ring: each member hears one neighbour", several)
async def ring(field: Battlefield, dice: random.Random, seconds: float) -> None:
    order = dice.sample(range(len(field.nodes)), len(field.nodes))
    heard = {(order[n], order[(n + 1) % len(order)]) for n in range(len(order))}
    await during(field, "ring", [p for p in everyone(field) if p not in heard], Rule(cut=True), seconds)


@fault("nobody hears anybody", several)
async def nobody(field: Battlefield, dice: random.Random, seconds: float) -> None:
    await during(field, "all cut", everyone(field), Rule(cut=True), min(seconds, 4.0))


@fault("a partition that comes and goes", several)
async def flapping(field: Battlefield, dice: random.Random, seconds: float) -> None:
    number = field.nodes.index(await victim(field, dice))
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        await during(field, "flapping", _around(field, number), Rule(cut=True), dice.uniform(0.1, 1.5))
        await asyncio.sleep(dice.uniform(0.05, 0.8))


@fault("delay", several)
async def delay(field: Battlefield, dice: random.Random, seconds: float) -> None:
    rule = Rule(delay_s=dice.uniform(0.005, 0.1), jitter_s=dice.uniform(0.0, 0.1))
    await during(field, "delay", _some(field, dice), rule, seconds)


@fault("loss", several)
async def loss(field: Battlefield, dice: random.Random, seconds: float) -> None:
    await during(field, "loss", _some(field, dice), Rule(loss=dice.uniform(0.05, 0.5)), seconds)


@fault("slow link", several)
async def slow(field: Battlefield, dice: random.Random, seconds: float) -> None:
    rule = Rule(bytes_per_s=dice.choice((20_000, 100_000, 500_000)))
    await during(field, "slow link", _some(field, dice), rule, seconds)


@fault("resets", several)
async def resets(field: Battlefield, dice: random.Random, seconds: float) -> None:
    field.note("resets")
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        field.network.reset([dice.choice(everyone(field))])
        await asyncio.sleep(dice.uniform(0.05, 1.0))


def _some(field: Battlefield, dice: random.Random) -> list[Pair]:
    """All links or a part of them."""
    pairs = everyone(field)
    return pairs if dice.random() < 0.5 else dice.sample(pairs, dice.randrange(1, len(pairs)))
