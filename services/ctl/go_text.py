"""Numbers, durations, sizes and quoted strings as Go reads and writes them, because scripts compare the texts."""

import re
from collections.abc import Callable
from typing import Final

_UNITS_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_ESCAPES: Final = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r", 34: r"\"", 92: r"\\"}
_UNESCAPES: Final = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92, "'": 39}
_ESCAPED: Final = re.compile(
    rb"\\(?:([abtnvfr\"'\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))"
)


def parse_int(text: str, base: int = 10, bits: int = 64, signed: bool = True) -> int:
    """strconv.ParseInt or ParseUint; ValueError with Go's text. Base 0 follows the prefix."""
    name = "ParseInt" if signed else "ParseUint"
    try:
        if not text or text.strip() != text or "_" in text:
            raise ValueError
        number = int(text, base)
    except ValueError:
        raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax') from None
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if number < 0 and not signed:
        raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax')
    if not low <= number <= high:
        raise ValueError(f'strconv.{name}: parsing "{text}": value out of range')
    return number


def parse_bool(text: str) -> bool:
    """strconv.ParseBool; ValueError with Go's text."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_duration(text: str) -> float:
    """Seconds of a duration like `1m30s` or `250ms`; ValueError with Go's text."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if digits == "0":
        return 0.0
    parts = _DURATION.findall(digits)
    if not parts or "".join(number + unit for number, unit in parts) != digits:
        reason = "missing unit in duration" if re.fullmatch(r"[\d.]+", digits) else "invalid duration"
        raise ValueError(f'time: {reason} "{text}"')
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def duration(seconds: float) -> str:
    """A duration as Go prints it: `1.5ms`, `2m0.25s`."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if nanoseconds < 1_000_000_000:
        unit, size = next(u for u in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)) if nanoseconds < u[1] * 1000)
        return f"{sign}{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    shown = f"{_decimal(rest, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{shown}"
    return f"{sign}{minutes}m{shown}" if minutes else sign + shown


def _decimal(number: int, size: int) -> str:
    whole, part = divmod(number, size)
    digits = str(part).rjust(len(str(size)) - 1, "0").rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)


def human_bytes(size: int) -> str:
    """A size as etcdctl shows it: `20 kB`, `2.1 GB`."""
    if size < 10:
        return f"{size} B"
    for power, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB", "EB")):
        if size < 1000 ** (power + 1):
            value = int(size / 1000**power * 10 + 0.5) / 10
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError(size)


def quote(raw: bytes) -> str:
    """Bytes as Go's %q prints them."""
    shown = []
    for character in raw.decode(errors="surrogateescape"):
        point = ord(character)
        if point in _ESCAPES:
            shown.append(_ESCAPES[point])
        elif 0xDC80 <= point <= 0xDCFF:  # a byte that is no UTF-8
            shown.append(f"\\x{point - 0xDC00:02x}")
        elif character.isprintable():
            shown.append(character)
        elif point < 0x80:
            shown.append(f"\\x{point:02x}")
        else:
            shown.append(f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}")
    return '"' + "".join(shown) + '"'


def unquote(text: str) -> bytes:
    """The bytes of a Go string literal in double quotes; ValueError when it is none."""
    raw = text.encode(errors="surrogateescape")
    if len(raw) < 2 or not raw.startswith(b'"') or not raw.endswith(b'"') or re.search(rb'(?<!\\)(\\\\)*"', raw[1:-1]):
        raise ValueError("invalid syntax")
    plain = _ESCAPED.sub(_unescaped, raw[1:-1])
    if re.search(rb"\\(?![abtnvfr\"'\\xuU0-7])", raw[1:-1].replace(b"\\\\", b"")):
        raise ValueError("invalid syntax")
    return plain


def _unescaped(found: re.Match[bytes]) -> bytes:
    simple, two, four, eight, octal = found.groups()
    if simple is not None:
        return bytes((_UNESCAPES[simple.decode()],))
    if two is not None:
        return bytes((int(two, 16),))
    if octal is not None:
        return bytes((int(octal, 8) & 0xFF,))
    return chr(int(four or eight, 16)).encode()


def hexadecimal(raw: bytes) -> str:
    """Bytes as `--hex` shows them."""
    return "".join(f"\\x{byte:02x}" for byte in raw)


def shown_as(hex_wanted: bool) -> Callable[[bytes], bytes]:
    """What turns a key or value into the bytes the simple format writes."""
    return (lambda raw: hexadecimal(raw).encode()) if hex_wanted else (lambda raw: raw)
