"""Members that come, vote, move and go, as an operator has them do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from bench import servers
from bench.servers import Cluster, Node
from quorate.proto import rpc_pb2 as rpc
from tests.support.cluster import wait_until
from tests.support.rpc import calling, refusal

WITHIN_S = 60.0


def members(node: Node) -> dict[str, rpc.Member]:
    """By peer URL, as one member tells it after asking the others."""
    with calling(node.endpoint) as caller:
        answer = caller.unary("Cluster/MemberList", rpc.MemberListRequest(linearizable=True))
    return {member.peerURLs[0]: member for member in answer.members}


def attempted(node: Node, method: str, request: object, is_done: Callable[[dict[str, rpc.Member]], bool]) -> None:
    """Ask until the members are as wanted: an answer may be lost, and a refusal may be for the moment."""
    last = "not asked"

    def done() -> bool:
        nonlocal last
        try:
            if is_done(members(node)):
                return True
            with calling(node.endpoint) as caller:
                caller.unary(f"Cluster/{method}", request)  # type: ignore[arg-type]
        except grpc.RpcError as error:
            last = " ".join(refusal(error))
        return False

    try:
        wait_until(done, method, WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from error


def add(by: Node, peer_url: str, *, learner: bool) -> None:
    """A member, not started."""
    request = rpc.MemberAddRequest(peerURLs=[peer_url], isLearner=learner)
    attempted(by, "MemberAdd", request, lambda known: peer_url in known)


def promote(by: Node, peer_url: str) -> None:
    """As soon as the learner has caught up."""
    request = rpc.MemberPromoteRequest(ID=members(by)[peer_url].ID)
    attempted(by, "MemberPromote", request, lambda known: not known[peer_url].isLearner)


def remove(by: Node, peer_url: str) -> None:
    """For good."""
    known = members(by).get(peer_url)
    if known is not None:
        attempted(by, "MemberRemove", rpc.MemberRemoveRequest(ID=known.ID), lambda found: peer_url not in found)


def update(by: Node, old: str, new: str) -> None:
    """Where a member is reached from now on."""
    request = rpc.MemberUpdateRequest(ID=members(by)[old].ID, peerURLs=[new])
    attempted(by, "MemberUpdate", request, lambda known: new in known)


def grow(cluster: Cluster, by: Node, name: str) -> Node:
    """A new member that votes: added as a learner, started, promoted."""
    node = servers.newcomer(cluster, name)
    add(by, node.peer_url, learner=True)
    cluster.nodes.append(node)
    node.start()
    promote(by, node.peer_url)
    node.wait_ready()
    return node


def shrink(cluster: Cluster, node: Node) -> None:
    """Remove a member; it has to end by itself."""
    by = next(other for other in cluster.nodes if other is not node)
    remove(by, node.peer_url)
    wait_until(lambda: has_ended(node), f"{node.name} ends, removed", WITHIN_S)
    cluster.nodes.remove(node)
    node.kill()


def has_ended(node: Node) -> bool:
    return node.process is None or node.process.poll() is not None


def changed(words: Iterable[str], old: str, new: str) -> tuple[str, ...]:
    """Flags with another address."""
    return tuple(word.replace(old, new) for word in words)
