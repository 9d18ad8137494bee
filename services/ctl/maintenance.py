"""`compaction`, `defrag`, `move-leader` and `downgrade`."""

from __future__ import annotations

import sys
import time

import click

from quorate.client import methods
from quorate.client.errors import EtcdError
from quorate.ctl import go_text
from quorate.ctl.commands import Group, command
from quorate.ctl.endpoint import CLUSTER, endpoints_of
from quorate.ctl.failures import ERROR, Failure, bad_arguments
from quorate.ctl.flags import Switch
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings, complete, signed_in
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.rpc_pb2 import DowngradeRequest


@command(
    "<revision>", Switch("--physical", help="'true' to wait for compaction to physically remove all old revisions")
)
def compaction(settings: Settings, words: tuple[str, ...], physical: bool) -> None:
    """Forget the history before a revision."""
    if len(words) != 1:
        raise bad_arguments("compaction command needs 1 argument")
    try:
        revision = go_text.parse_int(words[0])
    except ValueError as error:
        raise Failure(str(error)) from None
    settings.run(lambda client: client.compact(revision, physical), unlimited=physical)
    line(f"compacted revision {revision}")


@command("", Switch("--cluster", help=CLUSTER))
def defrag(settings: Settings, words: tuple[str, ...], cluster: bool) -> None:
    """Give free space of the members' databases back, one member after the other."""
    failures = 0
    for endpoint in endpoints_of(settings, cluster):
        started = time.monotonic()
        try:
            settings.run(
                lambda client: client.call(methods.DEFRAGMENT, rpc.DefragmentRequest()), [endpoint], unlimited=True
            )
            line(f"Finished defragmenting etcd member[{endpoint}]. took {go_text.duration(time.monotonic() - started)}")
        except Failure as failure:
            took = go_text.duration(time.monotonic() - started)
            print(
                f"Failed to defragment etcd member[{endpoint}]. took {took}. ({failure.text})",
                file=sys.stderr,
                flush=True,
            )
            failures += 1
    if failures:
        raise Failure("", ERROR)


@command("<member id>")
def move_leader(settings: Settings, words: tuple[str, ...]) -> None:
    """Hand leadership to another member; the leader has to be among the endpoints."""
    if len(words) != 1:
        raise bad_arguments("move-leader command needs 1 argument")
    try:
        target = go_text.parse_int(words[0], 16, signed=False)
    except ValueError as error:
        raise bad_arguments(str(error)) from None
    printer = settings.printer()
    leader, endpoint = complete(_leader(settings))
    request = rpc.MoveLeaderRequest(targetID=target)
    answer = settings.run(lambda client: client.call(methods.MOVE_LEADER, request), [endpoint])
    printer.move_leader(leader, target, answer)


async def _leader(settings: Settings) -> tuple[int, str]:
    endpoints = settings.all_endpoints()
    for endpoint in endpoints:
        async with settings.client([endpoint]) as client:
            await signed_in(client)
            try:
                found = await client.call(methods.STATUS, rpc.StatusRequest())
            except EtcdError as error:
                raise Failure(error.text) from error
            if found.leader == found.header.member_id:
                return found.leader, endpoint
    raise bad_arguments(f"no leader endpoint given at [{' '.join(endpoints)}]")


@click.group(cls=Group)
def downgrade() -> None:
    """Prepare the cluster for an older version."""


def _run_downgrade(
    settings: Settings, what: str, action: DowngradeRequest.DowngradeAction.ValueType, words: tuple[str, ...]
) -> None:
    if action != DowngradeRequest.CANCEL:
        if not words:
            raise bad_arguments("TARGET_VERSION not provided")
        if len(words) > 1:
            raise bad_arguments("too many arguments")
    printer = settings.printer()
    request = DowngradeRequest(action=action, version=words[0] if words else "")
    answer = settings.run(lambda client: client.call(methods.DOWNGRADE, request))
    printer.done(f"Downgrade {what} success, cluster version {answer.version}", answer)


@command("<target version>")
def validate(settings: Settings, words: tuple[str, ...]) -> None:
    """Tell whether the cluster can go to a version, X.Y."""
    _run_downgrade(settings, "validate", DowngradeRequest.VALIDATE, words)


@command("<target version>")
def enable(settings: Settings, words: tuple[str, ...]) -> None:
    """Begin to go to a version, X.Y."""
    _run_downgrade(settings, "enable", DowngradeRequest.ENABLE, words)


@command("")
def cancel(settings: Settings, words: tuple[str, ...]) -> None:
    """Stay with the version there is."""
    _run_downgrade(settings, "cancel", DowngradeRequest.CANCEL, words)


for one in (validate, enable, cancel):
    downgrade.add_command(one)
