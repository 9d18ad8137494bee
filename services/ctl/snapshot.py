"""`snapshot save`: an image of one member's database, in a file."""

import hashlib
import os
from pathlib import Path
from typing import Final

import click
import grpc

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.client.connection import translated
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import INTERRUPTED, Failure, bad_arguments
from quorate.ctl.printers import line
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc

DIGEST_BYTES: Final = 32
PAGE_BYTES: Final = 512  # an image is a whole number of these, and then its digest


@click.group(cls=Group)
def snapshot() -> None:
    """Manage images of a member's database."""


@command("<file>")
def save(settings: Settings, words: tuple[str, ...]) -> None:
    """Save an image of the one endpoint's database; the file appears when it is whole."""
    if len(words) != 1:
        raise bad_arguments("snapshot save expects one argument")
    endpoints = settings.all_endpoints()
    if len(endpoints) != 1:
        shown = " ".join(endpoints)
        raise Failure(f"snapshot must be requested to one selected node, not multiple [{shown}]", INTERRUPTED)
    settings.printer()
    path = Path(words[0])
    part = path.with_name(path.name + ".part")
    try:
        try:
            with part.open("wb") as file:
                version = settings.run(lambda client: _download(client, file.fileno(), settings.command_timeout))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failure(f"could not open {part} (open {part}: {reason})", INTERRUPTED) from error
        part.rename(path)
    except Failure as failure:
        part.unlink(missing_ok=True)
        raise Failure(failure.text, INTERRUPTED) from failure
    line(f"Snapshot saved at {words[0]}")
    if version:
        line(f"Server version {version}")


async def _download(client: AsyncClient, file: int, timeout_s: float | None) -> str:
    version, size = "", 0
    digest, tail = hashlib.sha256(), b""
    stream = await client.connection.download(
        methods.SNAPSHOT_PATH, b"", rpc.SnapshotResponse.FromString, timeout_s=timeout_s
    )
    try:
        async for part in stream:
            version = part.version or version
            size += len(part.blob)
            os.write(file, part.blob)
            held = tail + part.blob
            digest.update(held[:-DIGEST_BYTES])
            tail = held[-DIGEST_BYTES:]
    except grpc.aio.AioRpcError as lost:
        raise translated(lost) from lost
    os.fsync(file)
    if size % PAGE_BYTES != DIGEST_BYTES:
        raise Failure(f"sha256 checksum not found [bytes: {size}]")
    if digest.digest() != tail:
        raise Failure(f"expected sha256 [{tail.hex()}], got [{digest.hexdigest()}]")
    return version


snapshot.add_command(save)
