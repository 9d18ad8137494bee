"""A service that does nothing but live and die as it is told: `standin.py NAME`, told by the file NAME.does."""

import os
import sys
import threading
from pathlib import Path

from quorate.node import lifecycle, logs
from quorate.node.config import Config
from quorate.node.lifecycle import OperatorError

LINES = 5000


def main(config: Config) -> None:
    name = sys.argv[1]
    stop = threading.Event()
    lifecycle.on_stop(stop.set)
    orders = Path(config.data_dir) / f"{name}.does"
    order = orders.read_text() if orders.exists() else ""
    if order == "refuse":
        raise OperatorError("the log is damaged at byte 7")
    if order == "crash once":
        orders.unlink()
        raise RuntimeError("a bug")
    if order == "talk":
        for number in range(LINES):
            logs.named().info(f"line {number}", more="." * 200)
        (Path(config.data_dir) / f"{name}.talked").touch()
    logs.named().info("up", pid=os.getpid(), worker=lifecycle.worker_number())
    if name == "api" and lifecycle.worker_number() == 0:
        lifecycle.ready_to_serve(config)
    while not stop.wait(0.05):
        pass


if __name__ == "__main__":
    lifecycle.run(sys.argv[1], main)
