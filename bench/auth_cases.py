"""The cases with auth on: what it costs a call, how fast users log in, and many of them."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from bench import engine, messages, servers
from bench.cases import Case, Context, Figures, Goal
from bench.load import user_name

ROOT: Final = b"root"
PASSWORD: Final = b"a password of usual length"
IN_FLIGHT: Final = 16
LOGIN_CONNECTIONS: Final = 16
LOGINS: Final = 200
LOGINS_QUICK: Final = 10
USERS: Final = 10_000
USERS_QUICK: Final = 200
ROLES: Final = 1_000
ROLES_QUICK: Final = 20
RANGES_PER_ROLE: Final = 100


def _ask(node: servers.Node, path: str, requests: Iterable[bytes], token: str = "") -> None:
    for _ in engine.pipeline(servers.HOST, node.client_port, path, iter(requests), IN_FLIGHT, 600.0, token):
        pass


def _add_root(node: servers.Node) -> None:
    _ask(node, messages.USER_ADD, [messages.user_add(ROOT, PASSWORD)])
    _ask(node, messages.ROLE_ADD, [messages.role_add(ROOT)])
    _ask(node, messages.USER_GRANT_ROLE, [messages.user_grant_role(ROOT, ROOT)])


def _token(node: servers.Node, user: bytes) -> str:
    request = messages.authenticate(user, PASSWORD)
    return messages.token(engine.call(servers.HOST, node.client_port, messages.AUTHENTICATE, request))


def _load(context: Context, node: servers.Node, workload: str, *arguments: str) -> dict[str, float]:
    times = ("--seconds", str(context.seconds), "--warmup", str(context.warmup))
    return servers.load(["-m", "bench.load", workload, "--endpoints", node.endpoint, *times, *arguments])


def guarded(context: Context, workload: str) -> Figures:
    """A workload before and after auth is turned on, as a user with one role."""
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        _add_root(node)
        user = user_name(0)
        _ask(node, messages.USER_ADD, [messages.user_add(user, PASSWORD)])
        _ask(node, messages.ROLE_ADD, [messages.role_add(user)])
        _ask(node, messages.ROLE_GRANT_PERMISSION, [messages.role_grant(user, b"bench", b"benci")])
        _ask(node, messages.USER_GRANT_ROLE, [messages.user_grant_role(user, user)])
        before = _load(context, node, workload)
        _ask(node, messages.AUTH_ENABLE, [b""])
        after = _load(context, node, workload, "--token", _token(node, user))
    return after | {"kept_share": after["throughput"] / before["throughput"] if before["throughput"] else 0.0}


def logins(context: Context) -> Figures:
    """Many users log in for the first time, then again and again."""
    users = LOGINS_QUICK if context.quick else LOGINS
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        _add_root(node)
        _ask(node, messages.USER_ADD, (messages.user_add(user_name(number), PASSWORD) for number in range(users)))
        _ask(node, messages.AUTH_ENABLE, [b""])
        common = ("--users", str(users), "--password", PASSWORD.decode(), "--connections", str(LOGIN_CONNECTIONS))
        counted = ("--seconds", "600", "--warmup", "0", "--count", str(users))
        first = servers.load(["-m", "bench.load", "login", "--endpoints", node.endpoint, *common, *counted])
        again = _load(context, node, "login", *common)
    return {"first_per": first["throughput"], "repeated_per": again["throughput"]}


def many_users(context: Context) -> Figures:
    """Ranges of one user, alone and among many users and roles."""
    users, roles = (USERS_QUICK, ROLES_QUICK) if context.quick else (USERS, ROLES)
    with servers.running(context.product, 1, context.parent) as cluster:
        node = cluster.nodes[0]
        _add_root(node)
        user = user_name(0)
        _ask(node, messages.USER_ADD, [messages.user_add(user, PASSWORD)])
        _ask(node, messages.ROLE_ADD, (messages.role_add(b"role%d" % number) for number in range(roles)))
        _ask(node, messages.ROLE_GRANT_PERMISSION, [messages.role_grant(b"role0", b"bench", b"benci")])
        _ask(node, messages.USER_GRANT_ROLE, [messages.user_grant_role(user, b"role0")])
        _ask(node, messages.AUTH_ENABLE, [b""])
        alone = _load(context, node, "range", "--token", _token(node, user))
        grants = (
            messages.role_grant(b"role%d" % role, b"%d/%d/" % (role, number), b"%d/%d0" % (role, number))
            for role in range(roles)
            for number in range(RANGES_PER_ROLE)
        )
        token = _token(node, ROOT)
        _ask(node, messages.ROLE_GRANT_PERMISSION, grants, token)
        names = [user_name(number) for number in range(1, users)]
        _ask(node, messages.USER_ADD, (messages.user_add(name) for name in names), token)
        given = (messages.user_grant_role(name, b"role%d" % (number % roles)) for number, name in enumerate(names))
        _ask(node, messages.USER_GRANT_ROLE, given, token)
        among = _load(context, node, "range", "--token", _token(node, user))
    return among | {"p99_share": among["p99_ms"] / alone["p99_ms"] if alone["p99_ms"] else 0.0}


def _guarded_case(name: str, title: str, workload: str, at_least: float) -> Case:
    goals = (Goal("throughput", at_least=at_least), Goal("kept_share", at_least=0.9, own=True))
    return Case(name, title, partial(guarded, workload=workload), goals)


AUTH_CASES: Final = (
    _guarded_case("auth-put-1", "auth on, one node, 100 connections: put; and its share without", "put", 1.5),
    _guarded_case("auth-range-1", "auth on, one node, 100 connections: range; and its share without", "range", 1.6),
    Case(
        "logins",
        "200 users log in at bcrypt cost 10 for the first time, and again",
        logins,
        (Goal("first_per", at_least=0.9), Goal("repeated_per", at_least=10.0)),
    ),
    Case(
        "many-users",
        "10,000 users, 1,000 roles with 100 ranges each: range, and its p99 to that with one user",
        many_users,
        (Goal("p99_share", at_most=1.2, own=True),),
    ),
)
