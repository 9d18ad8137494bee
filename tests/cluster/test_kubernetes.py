"""Kubernetes API servers over a cluster that loses processes and members: caches that lie would break every cluster."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from tests.cluster.api_server import ApiServer, Objects
from tests.support.cluster import SERVICES, quorate_cluster, restart_service, wait_until

NUMBERS = [b"/registry/pods/default/number-%02d" % number for number in range(10)]
PASSING = [b"/registry/pods/default/passing-%02d" % number for number in range(10)]
LIST_WITHIN_S = 60.0
AWAY_S = 0.1


class Controller:
    """Works through one server: increases numbers, lets others come and go, lists, compacts."""

    def __init__(self, server: ApiServer, rounds: int) -> None:
        self.server = server
        self.done: Counter[bytes] = Counter()
        self.open: Counter[bytes] = Counter()
        self.round = 0
        self._rounds = rounds
        self.fault: BaseException | None = None
        self._member_is_away = threading.Event()  # nobody sets it
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        told = 0
        try:
            while self.round < self._rounds:
                key = NUMBERS[self.round % len(NUMBERS)]
                (self.done if self.server.increase(key) else self.open)[key] += 1
                try:
                    self._one_more()
                    if self.round % 40 == 39:
                        told = self.server.compact(told)
                except grpc.RpcError:
                    self._member_is_away.wait(AWAY_S)
                self.round += 1
        except BaseException as fault:
            self.fault = fault

    def _one_more(self) -> None:
        passing = PASSING[self.round % len(PASSING)]
        if self.round % 3 == 0:
            self.server.create(passing, b"here")
        elif self.round % 3 == 1:
            self.server.delete(passing)
        if self.round % 5 == 0:
            self.server.consistent_list(0.5)


@contextmanager
def controllers(endpoints: list[str], rounds: int) -> Iterator[list[Controller]]:
    """At work on a server for each endpoint, until they have done their rounds."""
    working = [Controller(ApiServer(endpoint), rounds) for endpoint in endpoints]
    for one in working:
        one.thread.start()
    try:
        yield working
        for one in working:
            one.thread.join()
    finally:
        for one in working:
            one.server.stop()
            one.thread.join()


def all_alike(working: list[Controller]) -> Objects:
    """What every server's cache has in the end, and the store."""
    lists: list[Objects] = []
    for one in working:
        assert one.fault is None, one.fault
        listed = one.server.consistent_list(LIST_WITHIN_S)
        assert listed is not None, "a cache does not catch up"
        lists.append(listed)
        assert not one.server.problem, one.server.problem
    assert all(listed == lists[0] for listed in lists)
    return lists[0]


def check_numbers(working: list[Controller], objects: Objects) -> None:
    """Each increase that was answered counts once, each of unknown fate at most once."""
    for key in NUMBERS:
        done = sum(one.done[key] for one in working)
        unknown = sum(one.open[key] for one in working)
        assert done <= int(objects[key][1]) <= done + unknown, (key, done, unknown, objects[key])


def test_three_servers_share_one_node() -> None:
    with quorate_cluster() as cluster, controllers([cluster.nodes[0].endpoint] * 3, rounds=100) as working:
        for one in working:
            one.thread.join()
        check_numbers(working, all_alike(working))
        assert all(one.open.total() == 0 and one.server.lists >= 10 for one in working)


def test_servers_of_three_members_agree_though_processes_and_a_member_die() -> None:
    with (
        quorate_cluster(3) as cluster,
        controllers([node.endpoint for node in cluster.nodes], rounds=300) as working,
    ):

        def rounds() -> int:
            return sum(one.round for one in working)

        def some_more() -> None:
            enough = rounds() + 60
            wait_until(lambda: rounds() >= enough or not any(one.thread.is_alive() for one in working), "work goes on")

        some_more()
        for service in SERVICES:
            restart_service(cluster.leader(), service)
            some_more()
        leader = cluster.leader()
        leader.kill()
        some_more()
        leader.start()
        for one in working:
            one.thread.join()
            wait_until(one.server.answers, "each server finds its member again")
        check_numbers(working, all_alike(working))
        assert all(one.done.total() > 0 for one in working)
