"""`watch`: changes as they happen, for a reader or for a command."""

import asyncio
import os
import shlex
import sys
from dataclasses import dataclass

import click

from quorate.client.aio import AsyncClient
from quorate.client.errors import CompactedError, EtcdError
from quorate.client.ranges import prefix_range
from quorate.client.watching import AsyncWatch
from quorate.ctl import go_text
from quorate.ctl.commands import command
from quorate.ctl.failures import ERROR, INTERRUPTED, INVALID_INPUT, Failure, bad_arguments
from quorate.ctl.flags import Switch, number
from quorate.ctl.printers import Printer, name_of
from quorate.ctl.settings import Settings
from quorate.proto.kv_pb2 import Event
from quorate.proto.rpc_pb2 import WatchCreateRequest, WatchResponse


@dataclass(frozen=True, slots=True)
class Wanted:
    """A watcher that was asked for, and the command to run for each of its events."""

    request: WatchCreateRequest
    program: tuple[str, ...]


def wanted(words: tuple[str, ...], prefix: bool, rev: int, prev_kv: bool, progress_notify: bool) -> Wanted:
    """The meaning of the words, of which those after `--` are a command; keys may come from the environment."""
    cut = words.index("--") if "--" in words else len(words)
    keys, program = words[:cut], words[cut + 1 :]
    key_variable = os.environ.get("ETCDCTL_WATCH_KEY", "")
    if key_variable and not keys:
        end_variable = os.environ.get("ETCDCTL_WATCH_RANGE_END", "")
        keys = (key_variable, end_variable) if end_variable else (key_variable,)
    if not 1 <= len(keys) <= 2:
        raise bad_arguments("bad number of arguments")
    if prefix and len(keys) == 2:
        raise bad_arguments("`range_end` and `--prefix` are mutually exclusive")
    key, range_end = os.fsencode(keys[0]), os.fsencode(keys[1]) if len(keys) == 2 else b""
    if prefix:
        key, range_end = prefix_range(key)
    request = WatchCreateRequest(
        key=key, range_end=range_end, start_revision=rev, prev_kv=prev_kv, progress_notify=progress_notify
    )
    return Wanted(request, program)


@command(
    "[key] [range_end] [-- command arg ...]",
    Switch("-i", "--interactive", help="Interactive mode"),
    Switch("--prefix", help="Watch on a prefix if prefix is set"),
    number("--rev", help="Revision to start watching"),
    Switch("--prev-kv", help="get the previous key-value pair before the event happens"),
    Switch("--progress-notify", help="get periodic watch progress notification from server"),
    keeps_dashes=True,
)
def watch(settings: Settings, words: tuple[str, ...], interactive: bool, **flags: int) -> None:
    """Tell every change of a key, a range or a prefix, or run a command for each.

    The command finds ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its
    environment. Interactively, lines like `watch key --rev 3` and `progress` are read from standard input.
    """
    printer = settings.printer()
    if interactive:
        settings.run(lambda client: _converse(client, printer), unlimited=True)
        return
    one = wanted(words, **flags)  # type: ignore[arg-type]
    settings.run(lambda client: _follow(_opened(client, one), one, printer), unlimited=True)


def _opened(client: AsyncClient, one: Wanted) -> AsyncWatch:
    return AsyncWatch(client.connection, one.request, hasleader=True)


async def _follow(watching: AsyncWatch, one: Wanted, printer: Printer) -> None:
    try:
        async for response in watching:
            printer.watch(response)
            for event in response.events if one.program else ():
                await _perform(one.program, response, event)
    except EtcdError as error:
        text = error.text if isinstance(error, CompactedError) else str(error)
        print(f"watch was canceled ({text})", file=sys.stderr, flush=True)
    raise Failure("watch is canceled by the server", INTERRUPTED)


async def _perform(program: tuple[str, ...], response: WatchResponse, event: Event) -> None:
    described = {
        "ETCD_WATCH_REVISION": str(response.header.revision),
        "ETCD_WATCH_EVENT_TYPE": go_text.quote(name_of(Event.EventType, event.type).encode()),
        "ETCD_WATCH_KEY": go_text.quote(event.kv.key),
        "ETCD_WATCH_VALUE": go_text.quote(event.kv.value),
    }
    try:
        process = await asyncio.create_subprocess_exec(*program, env=os.environ | described)
    except OSError as error:
        print(f"command {_quoted(program)} error ({error.strerror or error})", file=sys.stderr)
        raise Failure("", ERROR) from None
    status = await process.wait()
    if status:
        shown = f"exit status {status}" if status > 0 else f"signal: {-status}"
        print(f"command {_quoted(program)} error ({shown})", file=sys.stderr)
        raise Failure("", ERROR)


def _quoted(program: tuple[str, ...]) -> str:
    return f"[{' '.join(go_text.quote(os.fsencode(word)) for word in program)}]"


async def _converse(client: AsyncClient, printer: Printer) -> None:
    watchers: list[AsyncWatch] = []
    followers: list[asyncio.Task[None]] = []
    while text := await asyncio.to_thread(sys.stdin.buffer.readline):
        shown = text.decode(errors="surrogateescape").rstrip("\n")
        match _tokens(shown):
            case ["watch", *rest]:
                one = _asked(rest)
                if one is not None:
                    watchers.append(_opened(client, one))
                    followers.append(asyncio.create_task(_follow(watchers[-1], one, printer)))
            case ["progress"]:
                for watching in watchers:
                    await watching.request_progress()
            case _:
                print(f"Invalid command {shown} (only support watch)", file=sys.stderr, flush=True)
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    raise Failure("error reading watch request line: EOF", INVALID_INPUT)


def _asked(tokens: list[str]) -> Wanted | None:
    try:
        flags = watch.read(tokens)
        flags.pop("interactive")
        return wanted(**flags)
    except (Failure, click.ClickException) as wrong:
        shown = wrong.text if isinstance(wrong, Failure) else wrong.format_message()
        print(f"Invalid command watch {' '.join(tokens)} ({shown})", file=sys.stderr, flush=True)
        return None


def _tokens(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return [text]
