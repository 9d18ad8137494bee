"""`member`: list, add, remove, update and promote."""

from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from google.protobuf.message import Message

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.methods import Method
from quorate.ctl import go_text
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import ERROR, Failure, bad_arguments
from quorate.ctl.flags import Switch, text
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

Q = TypeVar("Q", bound=Message)


@click.group(cls=Group)
def member() -> None:
    """Membership related commands."""


def member_id(words: tuple[str, ...]) -> int:
    """The one member id among the words."""
    if len(words) != 1:
        raise bad_arguments("member ID is not provided")
    try:
        return go_text.parse_int(words[0], 16, signed=False)
    except ValueError as error:
        raise bad_arguments(f"bad member ID arg ({error}), expecting ID in Hex") from None


@command("", text("--consistency", default="l", help="Linearizable(l) or Serializable(s)"), name="list")
def list_(settings: Settings, words: tuple[str, ...], consistency: str) -> None:
    """List all members: ID, status, name, peer addresses, client addresses, is learner."""
    if consistency not in ("l", "s"):
        raise Failure(f"unknown consistency flag {go_text.quote(consistency.encode())}", ERROR)
    request = rpc.MemberListRequest(linearizable=consistency == "l")
    printer = settings.printer()
    printer.members(settings.run(lambda client: client.call(methods.MEMBER_LIST, request)))


def _peer_urls(given: str) -> list[str]:
    if not given:
        raise bad_arguments("member peer urls not provided")
    urls = given.split(",")
    for url in urls:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Failure(f"parse {go_text.quote(url.encode())}: {error}".lower()) from None
        if parts.scheme not in ("http", "https", "unix", "unixs"):
            raise Failure(f"URL scheme must be http, https, unix, or unixs: {url}")
        if parts.scheme in ("http", "https") and port is None:
            raise Failure(f'URL address does not have the form "host:port": {url}')
        if parts.path and parts.scheme in ("http", "https"):
            raise Failure(f"URL must not contain a path: {url}")
    return urls


@command(
    "<name>",
    text("--peer-urls", help="comma separated peer URLs for the new member."),
    Switch("--learner", help="indicates if the new member is raft learner"),
)
def add(settings: Settings, words: tuple[str, ...], peer_urls: str, learner: bool) -> None:
    """Add a member, and say with what settings to start it."""
    if not words:
        raise bad_arguments("member name not provided")
    if len(words) > 1:
        raise bad_arguments("too many arguments")
    request = rpc.MemberAddRequest(peerURLs=_peer_urls(peer_urls), isLearner=learner)
    printer = settings.printer()

    async def work(client: AsyncClient) -> rpc.MemberAddResponse:
        answer = await client.call(methods.MEMBER_ADD, request)
        listed = await client.call(methods.MEMBER_LIST, rpc.MemberListRequest(linearizable=True))
        del answer.members[:]
        answer.members.extend(listed.members)
        return answer

    answer = settings.run(work)
    printer.member_add(answer)
    if printer.is_simple:
        _advise(words[0], answer)


def _advise(name: str, answer: rpc.MemberAddResponse) -> None:
    cluster = [
        f"{name if one.ID == answer.member.ID else one.name}={url}" for one in answer.members for url in one.peerURLs
    ]
    line("")
    line(f'ETCD_NAME="{name}"')
    line(f'ETCD_INITIAL_CLUSTER="{",".join(cluster)}"')
    line(f'ETCD_INITIAL_ADVERTISE_PEER_URLS="{",".join(answer.member.peerURLs)}"')
    line('ETCD_INITIAL_CLUSTER_STATE="existing"')


def _change(settings: Settings, method: Method[Q, Any], request: Q, done: str, identity: int) -> None:
    printer = settings.printer()
    printer.member_change(done, identity, settings.run(lambda client: client.call(method, request)))


@command("<member id>")
def remove(settings: Settings, words: tuple[str, ...]) -> None:
    """Remove a member."""
    identity = member_id(words)
    _change(settings, methods.MEMBER_REMOVE, rpc.MemberRemoveRequest(ID=identity), "removed from", identity)


@command("<member id>", text("--peer-urls", help="comma separated peer URLs for the updated member."))
def update(settings: Settings, words: tuple[str, ...], peer_urls: str) -> None:
    """Give a member other peer URLs."""
    identity = member_id(words)
    if not peer_urls:
        raise bad_arguments("member peer urls not provided")
    request = rpc.MemberUpdateRequest(ID=identity, peerURLs=peer_urls.split(","))
    _change(settings, methods.MEMBER_UPDATE, request, "updated in", identity)


@command("<member id>")
def promote(settings: Settings, words: tuple[str, ...]) -> None:
    """Let a learner vote."""
    identity = member_id(words)
    _change(settings, methods.MEMBER_PROMOTE, rpc.MemberPromoteRequest(ID=identity), "promoted in", identity)


for one in (list_, add, remove, update, promote):
    member.add_command(one)
