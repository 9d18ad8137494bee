"""`python -m bench.handshakes`: a new TLS connection for each put, from many threads; one line of JSON."""

import argparse
import json
import sys
import threading
import time
from array import array

from bench import engine, http2, messages
from bench.certificates import Files
from bench.load import endpoint, percentile

PUT = messages.put(b"bench/handshake", b"v" * 256)


class Client(threading.Thread):
    """Connects, shakes hands, puts and hangs up until it is time. OpenSSL works outside the interpreter's lock."""

    def __init__(self, host: str, port: int, files: Files, begin: float, end: float) -> None:
        super().__init__(daemon=True)
        self.latencies = array("q")
        self.error = ""
        self._where = host, port
        self._context = files.context()
        self._begin = begin
        self._end = end

    def run(self) -> None:
        host, port = self._where
        while time.monotonic() < self._end:
            started = time.perf_counter_ns()
            try:
                engine.call(host, port, messages.KV_PUT, PUT, context=self._context)
            except (OSError, http2.ProtocolError) as error:
                self.error = repr(error)
                return
            if time.monotonic() >= self._begin:
                self.latencies.append(time.perf_counter_ns() - started)


def main() -> int:
    """Run and report; exit 1 when a connection failed."""
    parser = argparse.ArgumentParser(prog="bench.handshakes", description=__doc__)
    parser.add_argument("--endpoint", type=endpoint, required=True)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--cacert", required=True)
    parser.add_argument("--client-cert", default="")
    parser.add_argument("--client-key", default="")
    options = parser.parse_args()
    files = Files(options.cacert, options.client_cert, options.client_key)
    begin = time.monotonic() + options.warmup
    host, port = options.endpoint
    clients = [Client(host, port, files, begin, begin + options.seconds) for _ in range(options.threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    ordered = array("q", sorted(latency for client in clients for latency in client.latencies))
    error = next((client.error for client in clients if client.error), "")
    figures = {
        "throughput": round(len(ordered) / options.seconds, 1),
        "p50_ms": percentile(ordered, 0.50),
        "p99_ms": percentile(ordered, 0.99),
        "first_error": error,
    }
    print(json.dumps(figures), flush=True)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
