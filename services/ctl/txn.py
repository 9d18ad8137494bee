"""`txn`: conditions and requests from standard input, as one transaction."""

import os
import re
import sys
from typing import Final

import click

from quorate.client import methods
from quorate.ctl import go_text, kv
from quorate.ctl.commands import command
from quorate.ctl.failures import INVALID_INPUT, Failure, bad_arguments
from quorate.ctl.flags import Switch
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc
from quorate.proto.rpc_pb2 import Compare, RequestOp

WORD: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^'\"\s]\S*[^'\"\s]?")
QUOTED: Final = r"\"(?:[^\"\\]|\\.)*\""
COMPARISON: Final = re.compile(rf"\(({QUOTED})\)\s+(\S+)\s+({QUOTED})")
GOT: Final = re.compile(rf"\(({QUOTED})\)?\s*(\S*)")
RESULTS: Final = {"=": Compare.EQUAL, "!=": Compare.NOT_EQUAL, ">": Compare.GREATER, "<": Compare.LESS}
TARGETS: Final = {
    "ver": (Compare.VERSION, "version"),
    "version": (Compare.VERSION, "version"),
    "c": (Compare.CREATE, "create_revision"),
    "create": (Compare.CREATE, "create_revision"),
    "m": (Compare.MOD, "mod_revision"),
    "mod": (Compare.MOD, "mod_revision"),
    "val": (Compare.VALUE, "value"),
    "value": (Compare.VALUE, "value"),
    "lease": (Compare.LEASE, "lease"),
}


@command("", Switch("-i", "--interactive", help="Input transaction in interactive mode"))
def txn(settings: Settings, words: tuple[str, ...], interactive: bool) -> None:
    """Do several requests in one transaction.

    Standard input has three parts, each ended by an empty line: conditions like `mod("key") > "0"`, the requests for
    when all hold, and those for when one does not; requests are `put`, `get` and `del` with their flags.
    """
    if words:
        raise bad_arguments("txn command does not accept argument")

    def part(prompt: str) -> list[str]:
        if interactive:
            line(prompt)
        return _lines()

    request = rpc.TxnRequest(
        compare=[comparison(text) for text in part("compares:")],
        success=[operation(text) for text in part("success requests (get, put, del):")],
        failure=[operation(text) for text in part("failure requests (get, put, del):")],
    )
    printer = settings.printer()
    printer.txn(settings.run(lambda client: client.call(methods.TXN, request), unlimited=True))


def _lines() -> list[str]:
    found: list[str] = []
    while True:
        text = sys.stdin.readline()
        if not text.endswith("\n"):
            raise Failure("EOF", INVALID_INPUT)
        if not text.strip():
            return found
        found.append(text.strip())


def comparison(text: str) -> Compare:
    """A condition; Failure with status 3 when it is malformed."""
    target, parenthesis, _ = text.partition("(")
    if not parenthesis:
        raise Failure(f"malformed comparison: {text}", INVALID_INPUT)
    found = COMPARISON.fullmatch(text[len(target) :])
    if found is None:
        got = GOT.match(text[len(target) :])
        key, operator = (got[1], got[2]) if got else ('""', "")
        raise Failure(f'malformed comparison: {text}; got {target}({key}) {operator} ""', INVALID_INPUT)
    return _compare(text, target.strip(), *found.groups())


def _compare(text: str, target: str, key: str, operator: str, value: str) -> Compare:
    if operator not in RESULTS:
        raise Failure(f"malformed comparison: {text} (unknown operator {operator})", INVALID_INPUT)
    if target not in TARGETS:
        raise Failure(f"malformed comparison: {text} (unknown target {target})", INVALID_INPUT)
    kind, field = TARGETS[target]
    made = Compare(result=RESULTS[operator], target=kind)
    try:
        made.key = go_text.unquote(key)
        against = go_text.unquote(value)
        if kind == Compare.VALUE:
            made.value = against
        else:
            base = 16 if kind == Compare.LEASE else 10
            setattr(made, field, go_text.parse_int(os.fsdecode(against), base))
    except ValueError as error:
        raise Failure(f"malformed comparison: {text} ({error})", INVALID_INPUT) from None
    return made


def operation(text: str) -> RequestOp:
    """A request; Failure with status 3 when it is none."""
    words = [_plain(word) for word in WORD.findall(text)]
    invalid = f"invalid txn request: {text}"
    if not words:
        raise Failure(invalid, INVALID_INPUT)
    try:
        match words[0]:
            case "put":
                return RequestOp(request_put=kv.put_request(**kv.put.read(words[1:])))
            case "get":
                return RequestOp(request_range=kv.get_request(**kv.get.read(words[1:])))
            case "del":
                return RequestOp(request_delete_range=kv.delete_request(**kv.delete.read(words[1:])))
            case _:
                raise Failure(invalid, INVALID_INPUT)
    except click.ClickException as wrong:
        raise Failure(f"{invalid} ({wrong.format_message()})", INVALID_INPUT) from None


def _plain(word: str) -> str:
    if word.startswith("'"):
        return word[1:-1]
    if word.startswith('"'):
        try:
            return os.fsdecode(go_text.unquote(word))
        except ValueError as error:
            raise Failure(f"{error}: {word}", INVALID_INPUT) from None
    return word
