"""`snapshot save`: an image of one member's database, in a file."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

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
PRIVATE_MODE: Final = 0o600
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
    part = words[0] + ".part"
    try:
        file = open(part, "wb", opener=_private)  # noqa: SIM115 - closed below, where its errors have another text
    except OSError as error:
        raise Failure(f"could not open {part} (open {part}: {_reason(error)})", INTERRUPTED) from error
    try:
        with file:
            version = settings.run(lambda client: _download(client, file, settings.command_timeout))
        Path(part).rename(words[0])
    except OSError as error:
        Path(part).unlink(missing_ok=True)
        shown = f"could not rename {part} to {words[0]} (rename {part} {words[0]}: {_reason(error)})"
        raise Failure(shown, INTERRUPTED) from error
    except Failure as failure:
        Path(part).unlink(missing_ok=True)
        raise Failure(failure.text, INTERRUPTED) from failure
    line(f"Snapshot saved at {words[0]}")
    if version:
        line(f"Server version {version}")


def _private(name: str, flags: int) -> int:
    """An image holds every key and the hashes of the passwords: it is its owner's alone, as etcdctl's is."""
    descriptor = os.open(name, flags, PRIVATE_MODE)
    os.fchmod(descriptor, PRIVATE_MODE)  # of a part that was left behind
    return descriptor


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


async def _download(client: AsyncClient, file: BinaryIO, timeout_s: float | None) -> str:
    version, size = "", 0
    digest, tail = hashlib.sha256(), b""
    stream = await client.connection.download(
        methods.SNAPSHOT_PATH, b"", rpc.SnapshotResponse.FromString, timeout_s=timeout_s
    )
    try:
        async for part in stream:
            version = part.version or version
            size += len(part.blob)
            file.write(part.blob)
            held = tail + part.blob
            digest.update(held[:-DIGEST_BYTES])
            tail = held[-DIGEST_BYTES:]
        file.flush()
        os.fsync(file)
    except grpc.aio.AioRpcError as lost:
        raise translated(lost) from lost
    except OSError as error:
        raise Failure(f"write {file.name}: {_reason(error)}") from error
    if size % PAGE_BYTES != DIGEST_BYTES:
        raise Failure(f"sha256 checksum not found [bytes: {size}]")
    if digest.digest() != tail:
        raise Failure(f"expected sha256 [{tail.hex()}], got [{digest.hexdigest()}]")
    return version


snapshot.add_command(save)
