"""Takes out of a transcript what may differ between two servers that behave alike, and nothing else.

Revisions, versions of keys, counts, hashes, texts, codes and exit statuses stay as they are.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

RULES: Final = (
    # (what, replacement): the reason
    (r'"raft_term":"?[1-9]\d*"?', '"raft_term":<term>'),  # how many elections there were is chance
    (r'"(RaftTerm|RaftIndex|RaftAppliedIndex)" : [1-9]\d*', r'"\1" : <raft>'),  # entries of a member's own making
    (r'"(raftTerm|raftIndex|raftAppliedIndex)":"?\d+"?', r'"\1":<raft>'),
    (r'"(DBSize|DBSizeInUse)" : \d+', r'"\1" : <size>'),  # the files differ
    (r'"(dbSize|dbSizeInUse|dbSizeQuota)":"?\d+"?', r'"\1":<size>'),
    (r',"dbSizeInUse":<size>', ""),  # zero and left out where nothing is free
    (r'"Version" : "[\d.]+"', '"Version" : "<version>"'),
    (r'"version":"[\d.]+"', '"version":"<version>"'),
    (r"(Member|cluster)  +<", r"\1 <"),  # ids are padded with spaces to 16 digits, and one in 16 has fewer
    (r"took = [\d.]+[mµn]?s", "took = <time>"),
    (r'"(took|Took)"(:| : )"?[\d.]+[mµn]?s"?', r'"\1"\2<time>'),
    (r"remaining\(\d+s\)", "remaining(<time>)"),
    (r'"ttl":\d+', '"ttl":<time>'),
    (r'"TTL" : \d+', '"TTL" : <time>'),
)
TABLE_TIME: Final = re.compile(r"^[\d.]+[mµn]?s$")
IDENTITY: Final = re.compile(r"(?:(?<=Member ) +)?(?<![0-9a-f])(?:[0-9a-f]{13,16}|\d{16,19})(?![0-9a-f])")
INITIAL_CLUSTER: Final = re.compile(r'(ETCD_INITIAL_CLUSTER=")([^"]*)"')  # in the order of ids, which are chance
STATUS_LINE: Final = re.compile(
    r"^((?:http://)?<client\d>, <member\d>), [\d.]+, [\d.]+ \w+, (true|false), (true|false), \d+, \d+, \d+, (.*)$",
    re.MULTILINE,
)
STATUS_LINE_36: Final = re.compile(  # with storage version, use, quota and downgrade
    r"^((?:http://)?<client\d>, <member\d>), [\d.]+, [\d.]*, [\d.]+ \w+, [\d.]+ \w+, \d+%, [\d.]+ \w+, "
    r"(true|false), (true|false), \d+, \d+, \d+, (.*), (?:[\d.]*), (?:true|false)$",
    re.MULTILINE,
)
ATTACHED_KEYS: Final = re.compile(r"(?<=attached keys\(\[)[^]]*|(?:^\"Key\" : .*\n){2,}", re.MULTILINE)  # in no order
VOLATILE_COLUMNS: Final = frozenset(
    (
        *("VERSION", "DB SIZE", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "TOOK", "STORAGE VERSION", "IN USE"),
        *("PERCENTAGE NOT IN USE", "QUOTA"),
    )
)


class Names:
    """Gives identities names by the order in which they appear; the same identity always gets the same name.

    Hexadecimal and decimal forms are one identity, so a lease that is printed as both stays recognisable.
    """

    def __init__(self, known: Mapping[int, str], texts: Mapping[str, str]) -> None:
        self._texts = dict(texts)
        self._names = dict(known)
        for number, name in known.items():
            self._texts[f"{number:x}"] = self._texts[str(number)] = name

    def replace(self, text: str) -> str:
        """The text with addresses and identities named."""
        for actual in sorted(self._texts, key=len, reverse=True):
            text = text.replace(actual, self._texts[actual])
        return IDENTITY.sub(self._named, text)

    def _named(self, found: re.Match[str]) -> str:
        digits = found[0]
        number = int(digits) if len(digits) > 16 else int(digits, 16)
        return self._names.setdefault(number, f"<id{len(self._names)}>")


def output(text: str, names: Names) -> str:
    """Standard output of a command."""
    text = names.replace(text)
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    text = STATUS_LINE.sub(r"\1, <version>, <size>, \2, \3, <raft>, \4", text)
    text = STATUS_LINE_36.sub(r"\1, <version>, <size>, \2, \3, <raft>, \4", text)
    text = ATTACHED_KEYS.sub(lambda found: _ordered(found[0]), text)
    text = INITIAL_CLUSTER.sub(lambda found: found[1] + ",".join(sorted(found[2].split(","))) + '"', text)
    return _tables(text)


def errors(text: str, names: Names) -> str:
    """Standard error of a command: of the client library's log lines only the error, once."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("{"):
            logged = json.loads(line)
            line = f"{logged['level']}: {logged['msg']}: {logged.get('error', '')}"
        if not lines or lines[-1] != line:
            lines.append(line)
    return output("\n".join(lines) + "\n" if lines else "", names)


def _ordered(keys: str) -> str:
    return "".join(sorted(keys.splitlines(keepends=True))) if "\n" in keys else " ".join(sorted(keys.split()))


def _tables(text: str) -> str:
    """Tables without padding, which follows from the widest cell, and without volatile cells."""
    lines = []
    columns: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"[+-]+", line) and line.startswith("+-"):
            continue
        if line.startswith("| ") and line.endswith(" |"):
            cells = [cell.strip() for cell in line[1:-1].split("|")]
            if not columns:
                columns = cells
            else:
                cells = [
                    "<volatile>" if name in VOLATILE_COLUMNS else cell
                    for name, cell in zip(columns, cells, strict=True)
                ]
            line = "| " + " | ".join(cells) + " |"
        else:
            columns = []
        lines.append(line)
    return "\n".join(lines) + "\n" if lines else ""
