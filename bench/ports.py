"""Ports for servers of tests and measurements, that nobody else gets while this process lives.

A port that was free a moment ago is no use: whoever connects somewhere may be given it before the server is there, and
again while a node that was killed is away. So ports are chosen below those the system gives out by itself, and a lock
on one octet of a file, which the kernel drops with the process, keeps them from others who choose here.
"""

import fcntl
import os
import socket
import tempfile
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import Final

HOST: Final = "127.0.0.1"
LOWEST: Final = 10_000
GIVEN_OUT: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
GIVEN_OUT_DEFAULT: Final = 32_768
TRIES_MAX: Final = 10_000

_dice: Final = SystemRandom()  # a seed of a test is for the test
_claimed: Final[set[int]] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, this process's own until it ends."""
    ports: list[int] = []
    highest = _given_out()
    for _ in range(TRIES_MAX):
        if len(ports) == count:
            return ports
        port = _dice.randrange(LOWEST, highest)
        if _claim(port):
            ports.append(port)
    raise OSError("there is no free port")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


@cache
def _given_out() -> int:
    """The lowest port that the system gives to whoever asks for any."""
    try:
        return max(LOWEST + 1_000, int(GIVEN_OUT.read_text().split()[0]))
    except (OSError, ValueError):
        return GIVEN_OUT_DEFAULT


def _claim(port: int) -> bool:
    if port in _claimed:
        return False
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _claimed.add(port)
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@cache
def _locks() -> int:
    """Opened once: closing any descriptor of the file would drop all locks."""
    path = Path(tempfile.gettempdir()) / f"quorate-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
