"""Ports that tests and measurements choose: nobody else gets them."""

import socket
import subprocess
import sys

from bench import ports

CLAIM = "import sys; from bench import ports; sys.exit(ports._claim(int(sys.argv[1])))"


def is_given(port: int) -> bool:
    """Another process may have it."""
    return bool(subprocess.run([sys.executable, "-c", CLAIM, str(port)], check=False).returncode)


def test_a_port_is_chosen_once() -> None:
    chosen = ports.free_ports(100) + ports.free_ports(100)
    assert 200 == len(set(chosen))


def test_a_port_is_not_given_to_another_process_while_this_one_lives() -> None:
    code = "import sys; from bench import ports; print(ports.free_port(), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        while_it_lives = is_given(port)
        other.communicate()
    assert not while_it_lives
    assert is_given(port)


def test_a_port_is_none_that_the_system_gives_out() -> None:
    with socket.create_server((ports.HOST, 0)) as any_port:
        given_out = any_port.getsockname()[1]
    assert max(ports.free_ports(20)) < given_out


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((ports.HOST, 0)) as listener:
        assert not ports._claim(listener.getsockname()[1])
