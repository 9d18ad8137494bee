"""`put`, `get` and `del`: their requests, which `txn` makes too, and their commands."""

import os
import sys
import time
from typing import Final

from quorate.client import methods
from quorate.client.ranges import FROM_KEY, prefix_range
from quorate.ctl import go_text
from quorate.ctl.commands import command
from quorate.ctl.failures import BAD_ARGUMENTS, BAD_FEATURE, Failure, bad_arguments
from quorate.ctl.flags import Switch, number, text
from quorate.ctl.print_simple import Simple
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.rpc_pb2 import RangeRequest

WARNING_S: Final = 2.0
SORT_TARGETS: Final = {
    "CREATE": RangeRequest.CREATE,
    "KEY": RangeRequest.KEY,
    "MODIFY": RangeRequest.MOD,
    "VALUE": RangeRequest.VALUE,
    "VERSION": RangeRequest.VERSION,
    "": RangeRequest.KEY,
}
SORT_ORDERS: Final = {"": RangeRequest.NONE, "ASCEND": RangeRequest.ASCEND, "DESCEND": RangeRequest.DESCEND}


def interval(words: tuple[str, ...], prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """key and range_end of the words under `--prefix` and `--from-key`."""
    if prefix and from_key:
        raise bad_arguments("`--prefix` and `--from-key` cannot be set at the same time, choose one")
    key = os.fsencode(words[0])
    if len(words) > 1:
        if prefix or from_key:
            raise bad_arguments("too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
        return key, os.fsencode(words[1])
    if prefix:
        return prefix_range(key)
    return (key or b"\0", FROM_KEY) if from_key else (key, b"")


def put_request(
    words: tuple[str, ...], lease: str, prev_kv: bool, ignore_value: bool, ignore_lease: bool
) -> rpc.PutRequest:
    """A put; its value comes from standard input when it is not among the words."""
    if not words:
        raise bad_arguments("put command needs 1 argument and input from stdin or 2 arguments")
    if ignore_value and len(words) > 1:
        raise bad_arguments("put command needs only 1 argument when 'ignore-value' is set")
    try:
        lease_id = go_text.parse_int(lease, 16)
    except ValueError as error:
        raise bad_arguments(f"bad lease ID ({error}), expecting ID in Hex") from None
    value = b""
    if not ignore_value:
        value = os.fsencode(words[1]) if len(words) > 1 else sys.stdin.buffer.read()
    return rpc.PutRequest(
        key=os.fsencode(words[0]),
        value=value,
        lease=lease_id,
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )


@command(
    "<key> <value>",
    text("--lease", default="0", help="lease ID (in hexadecimal) to attach to the key"),
    Switch("--prev-kv", help="return the previous key-value pair before modification"),
    Switch("--ignore-value", help="updates the key using its current value"),
    Switch("--ignore-lease", help="updates the key using its current lease"),
)
def put(
    settings: Settings, words: tuple[str, ...], lease: str, prev_kv: bool, ignore_value: bool, ignore_lease: bool
) -> None:
    """Store a key. Without a value on the command line it is read from standard input.

    Put `--` before a value that begins with a dash.
    """
    request = put_request(words, lease, prev_kv, ignore_value, ignore_lease)
    printer = settings.printer()
    printer.put(settings.run(lambda client: client.call(methods.PUT, request)))


def get_request(
    words: tuple[str, ...],
    prefix: bool,
    from_key: bool,
    limit: int,
    rev: int,
    order: str,
    sort_by: str,
    keys_only: bool,
    count_only: bool,
    consistency: str,
    min_create_rev: int,
    max_create_rev: int,
    min_mod_rev: int,
    max_mod_rev: int,
    print_value_only: bool = False,
) -> RangeRequest:
    """A read; `print_value_only` is a matter of the output."""
    if not words:
        raise bad_arguments("get command needs one argument as key and an optional argument as range_end")
    if keys_only and count_only:
        raise bad_arguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one")
    if consistency not in ("l", "s"):
        raise Failure(f"unknown consistency flag {go_text.quote(consistency.encode())}", BAD_FEATURE)
    key, range_end = interval(words, prefix, from_key)
    if order.upper() not in SORT_ORDERS:
        raise Failure(f"bad sort order {order}", BAD_FEATURE)
    if sort_by.upper() not in SORT_TARGETS:
        raise Failure(f"bad sort target {sort_by}", BAD_FEATURE)
    sort_order, sort_target = SORT_ORDERS[order.upper()], SORT_TARGETS[sort_by.upper()]
    if (sort_order, sort_target) == (RangeRequest.ASCEND, RangeRequest.KEY):
        sort_order = RangeRequest.NONE  # keys come in that order by themselves
    return RangeRequest(
        key=key,
        range_end=range_end,
        limit=max(limit, 0),
        revision=max(rev, 0),
        sort_order=sort_order,
        sort_target=sort_target,
        serializable=consistency == "s",
        keys_only=keys_only,
        count_only=count_only,
        min_create_revision=min_create_rev,
        max_create_revision=max_create_rev,
        min_mod_revision=min_mod_rev,
        max_mod_revision=max_mod_rev,
    )


@command(
    "<key> [range_end]",
    Switch("--prefix", help="Get keys with matching prefix"),
    Switch("--from-key", help="Get keys that are greater than or equal to the given key using byte compare"),
    number("--limit", help="Maximum number of results"),
    number("--rev", help="Specify the kv revision"),
    text("--order", help="Order of results; ASCEND or DESCEND (ASCEND by default)"),
    text("--sort-by", help="Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
    Switch("--keys-only", help="Get only the keys"),
    Switch("--count-only", help="Get only the count"),
    Switch("--print-value-only", help='Only write values when using the "simple" output format'),
    text("--consistency", default="l", help="Linearizable(l) or Serializable(s)"),
    number("--min-create-rev", help="Minimum create revision"),
    number("--max-create-rev", help="Maximum create revision"),
    number("--min-mod-rev", help="Minimum modification revision"),
    number("--max-mod-rev", help="Maximum modification revision"),
)
def get(settings: Settings, words: tuple[str, ...], print_value_only: bool, **flags: object) -> None:
    """Read a key or the range of keys [key, range_end)."""
    request = get_request(words, **flags)  # type: ignore[arg-type]
    printer = settings.printer()
    answer = settings.run(lambda client: client.call(methods.RANGE, request))
    if request.count_only and settings.write_out != "fields":
        raise Failure("--count-only is only for `--write-out=fields`", BAD_ARGUMENTS)
    if print_value_only:
        if not printer.is_simple:
            raise Failure("print-value-only is only for `--write-out=simple`", BAD_ARGUMENTS)
        printer = Simple(settings.hex, values_only=True)
    printer.get(answer)


def delete_request(
    words: tuple[str, ...],
    prefix: bool,
    from_key: bool,
    prev_kv: bool,
    range: bool,  # noqa: A002 - the flag's name
) -> rpc.DeleteRangeRequest:
    """A delete; a range that was not asked for by `--range` waits until it can no longer be a mistake."""
    if not 1 <= len(words) <= 2:
        raise bad_arguments("del command needs one argument as key and an optional argument as range_end")
    key, range_end = interval(words, prefix, from_key)
    if len(words) == 2 and not range:
        print(
            f"Warning: Keys between {go_text.quote(key)} and {go_text.quote(range_end)} will be deleted. Please "
            "interrupt the command within next 2 seconds to cancel. You can provide `--range` flag to avoid the "
            "warning.",
            file=sys.stderr,
        )
        time.sleep(WARNING_S)
    return rpc.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)


@command(
    "<key> [range_end]",
    Switch("--prefix", help="delete keys with matching prefix"),
    Switch("--from-key", help="delete keys that are greater than or equal to the given key using byte compare"),
    Switch("--prev-kv", help="return deleted key-value pairs"),
    Switch("--range", help="delete a range of keys without the warning"),
    name="del",
)
def delete(settings: Settings, words: tuple[str, ...], **flags: bool) -> None:
    """Remove a key or the range of keys [key, range_end)."""
    request = delete_request(words, **flags)
    printer = settings.printer()
    printer.delete(settings.run(lambda client: client.call(methods.DELETE_RANGE, request)))
