"""Keys in URLs and texts: percent-encoded paths, prefixes, page cursors."""

import base64
from typing import Annotated, NamedTuple
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Request

from quorate.api.calling import Failed
from quorate.wire.errors import Code

KEYS_PATH = b"/v1/keys/"


async def key_of(
    request: Request,
    key: Annotated[str, Path(description="The key; percent-encoding stands for any byte.", examples=["greeting"])],
) -> bytes:
    """The key that the path names, to the byte."""
    raw: bytes = request.scope["raw_path"]
    return unquote_to_bytes(raw.partition(b"?")[0].removeprefix(KEYS_PATH))


KeyOfPath = Annotated[bytes, Depends(key_of)]


def text_of(data: bytes) -> str:
    """Bytes as text; bytes that are no UTF-8 become U+FFFD."""
    return data.decode(errors="replace")


def prefix_end(prefix: bytes) -> bytes:
    """The range_end that makes `prefix` a prefix; one zero byte, so no end, for the empty one."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


class Cursor(NamedTuple):
    """The rest of a list: the revision all its pages are read at, the first key to come and the end."""

    revision: int
    key: bytes
    range_end: bytes

    def text(self) -> str:
        """A text for a URL, to be given back as it is."""
        packed = b"%d:%d:%b%b" % (self.revision, len(self.key), self.key, self.range_end)
        return base64.urlsafe_b64encode(packed).decode()

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor that `text()` wrote; raises Failed for anything else."""
        try:
            revision, length, rest = base64.b64decode(text, b"-_", validate=True).split(b":", 2)
            key = rest[: int(length)]
            return cls(int(revision), key, rest[len(key) :])
        except ValueError:
            raise Failed(Code.INVALID_ARGUMENT, "cursor is not the `next` of a page") from None
