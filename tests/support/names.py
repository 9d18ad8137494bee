"""A name server with SRV records of a test's own, on a free port of this machine."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Records = Mapping[str, Sequence[str]]  # name -> "priority weight port target"

TTL_S = 0


def _answer(records: Records, octets: bytes) -> bytes:
    query = dns.message.from_wire(octets)
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA | dns.flags.RA
    name = query.question[0].name
    found = records.get(name.to_text(omit_final_dot=True))
    if found:
        response.answer.append(dns.rrset.from_text(name, TTL_S, "IN", "SRV", *found))
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response.to_wire()


def _serve(listener: socket.socket, records: Records) -> None:
    while True:
        octets, address = listener.recvfrom(4096)
        if not octets:
            return
        try:
            listener.sendto(_answer(records, octets), address)
        except dns.exception.DNSException:
            continue


@contextmanager
def name_server(records: Records) -> Iterator[str]:
    """The address, host:port, of a server that answers with these records until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        thread = threading.Thread(target=_serve, args=(listener, records), daemon=True)
        thread.start()
        try:
            yield f"{address[0]}:{address[1]}"
        finally:
            listener.sendto(b"", address)
            thread.join()
