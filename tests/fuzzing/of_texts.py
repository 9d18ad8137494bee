"""What operators and other services write: settings, commands, requests for certificates, answers of discovery."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from quorate.client import endpoints
from quorate.client.errors import EtcdError
from quorate.ctl import cfssl, go_text, txn
from quorate.ctl.failures import Failure
from quorate.discovery import registry, v2
from quorate.discovery.failures import DiscoveryFailed, ServiceLost
from quorate.node import flags, settings, validation
from quorate.node.flags import HelpAsked, UsageError
from quorate.node.settings import Conflict
from quorate.node.validation import Invalid
from tests.fuzzing.octets import Octets, odd
from tests.fuzzing.scratch import file
from tests.fuzzing.scratch import world as world

SAMPLE: Final = Path(__file__).resolve().parent.parent.parent / "deploy" / "etcd.conf.yml"
WORDS: Final = (
    "--name=x --listen-peer-urls=http://[::1]:2380,http://a:1 --heartbeat-interval 100 --auto-compaction-retention=1h",
    "--initial-cluster=a=http://a:1,b=http://b:1,a=http://a:2 --log-outputs stderr,/tmp/x --quota-backend-bytes 0x10",
    "--auto-compaction-mode revision --auto-compaction-retention 1000 --feature-gates=A=true --cipher-suites=X",
    "--client-cert-auth --trusted-ca-file=/x --tls-min-version=TLS1.2 --host-whitelist=a,b --cors=*",
    "--discovery=http://d/token --discovery-srv=example.com --strict-reconfig-check=false --election-timeout=99999999h",
)
CSR: Final = {"CN": "x", "hosts": ["a", "1.2.3.4"], "names": [{"O": "o"}], "key": {"algo": "rsa", "size": 2048}}
SIGNING: Final = {"signing": {"default": {"expiry": "1h"}, "profiles": {"p": {"usages": ["server auth"]}}}}
V2: Final = {
    "action": "get",
    "node": {"key": "/t", "nodes": [{"key": "/t/1", "value": "a=http://a:1", "createdIndex": 3}]},
}
V2_NEWS: Final = {"action": "set", "node": {"key": "/t/1", "value": "3", "createdIndex": 3, "modifiedIndex": 4}}
SETTINGS: Final = {
    "name": "a",
    "snapshot-count": 5,
    "listen-client-urls": "http://a:1",
    "strict-reconfig-check": False,
    "heartbeat-interval": 100,
    "auto-compaction-retention": "1h",
    "auto-compaction-mode": "periodic",
    "cipher-suites": ["a"],
    "cors": "*",
    "client-transport-security": {"cert-file": "a", "allowed-cn": ["a"], "client-cert-auth": True},
    "discovery-config": {"token": "t", "client": {"endpoints": ["a"], "dial-timeout": 5, "auth": {"username": "x"}}},
    "log-outputs": ["stderr"],
    "initial-cluster": "a=http://a:1",
    "feature-gates": "A=true",
}


def _from_file(content: bytes) -> None:
    found = settings.gather(flags.parse_arguments([f"--config-file={file(content)}"]), {})
    validation.check(found.config())


def _from_words(content: bytes) -> None:
    words = [word for word in content.decode(errors="replace").split(" ") if "config-file" not in word]
    validation.check(settings.gather(flags.parse_arguments(words), {}).config())


def _from_environment(content: bytes) -> None:
    lines = content.decode(errors="replace").split("\n")
    pairs = dict(line.partition("=")[::2] for line in lines if "CONFIG_FILE" not in line)
    validation.check(settings.gather(flags.parse_arguments([]), pairs).config())


def _request(content: bytes) -> None:
    cfssl.read_request(file(content))


def _profile(content: bytes) -> None:
    cfssl.read_profile(file(content), "p")


def _discovery(content: bytes) -> None:
    try:
        document = v2.document_of(content)
    except ValueError:
        return
    found = []
    for read in (v2.size_of, lambda one: v2.listing_of(one, 5), lambda one: v2.news_of(one, 5)):
        try:
            found.append(read(document))
        except ServiceLost:
            continue
    for listing in found:
        if isinstance(listing, str):
            registry.parse_size(listing)
        else:
            registry.initial_cluster(registry.merged(listing.members))


def _command(content: bytes) -> None:
    text = content.decode(errors="replace")
    for read in (txn.comparison, txn.operation):
        with suppress(Failure):
            read(text)


def _numbers(content: bytes) -> None:
    text = content.decode(errors="replace")
    for read in (go_text.parse_int, go_text.parse_bool, go_text.parse_duration, flags.duration_ms, flags.read_urls):
        with suppress(ValueError):
            read(text)
    go_text.quote(content)
    go_text.hexadecimal(content)


def _unquoted(content: bytes) -> None:
    text = go_text.quote(content)
    assert go_text.unquote(text) == content
    go_text.unquote(content.decode(errors="replace"))


def _endpoints(content: bytes) -> None:
    endpoints.parse_all(content.decode(errors="replace"))


def _odd_settings(content: bytes) -> None:
    _from_file(json.dumps(odd(Octets(content), SETTINGS)).encode())


def _odd_documents(content: bytes) -> None:
    octets = Octets(content)
    read, document = octets.choice(((_request, CSR), (_profile, SIGNING), (_discovery, V2), (_discovery, V2_NEWS)))
    read(json.dumps(odd(octets, document)).encode())


SETTINGS_REFUSALS: Final = (Invalid, Conflict, UsageError, HelpAsked)
READERS: Final[tuple[tuple[Callable[[bytes], None], tuple[type[Exception], ...]], ...]] = (
    (_from_file, SETTINGS_REFUSALS),
    (_from_words, SETTINGS_REFUSALS),
    (_from_environment, SETTINGS_REFUSALS),
    (_request, (ValueError,)),
    (_profile, (ValueError,)),
    (_discovery, (DiscoveryFailed, ServiceLost)),
    (_command, ()),
    (_numbers, ()),
    (_unquoted, (ValueError,)),
    (_endpoints, (ValueError, EtcdError)),
    (_odd_settings, SETTINGS_REFUSALS),
    (_odd_documents, (ValueError, DiscoveryFailed, ServiceLost)),
)


def seeds() -> list[bytes]:
    """Good texts for each reader."""
    environment = "\n".join(("ETCD_NAME=x", "ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379", "ETCD_X=1", "QUORATE_X=1"))
    tls = b"client-transport-security:\n  cert-file: a\n  allowed-cn: [a]\ndiscovery-config: {client: {}}\n"
    texts: list[tuple[int, bytes]] = [
        (0, SAMPLE.read_bytes()),
        (0, tls + b"snapshot-count: 5\nmax-txn-ops: '7'\nheartbeat-interval: !!float 1\n"),
        *((1, words.encode()) for words in WORDS),
        (2, environment.encode()),
        (3, json.dumps(CSR).encode()),
        (4, json.dumps(SIGNING).encode()),
        (5, json.dumps(V2).encode()),
        (5, json.dumps(V2_NEWS).encode()),
        (6, b'mod("key") > "0"'),
        (6, b'put key "some value" --lease=1234abcd'),
        (6, b"get a z --limit 3 --prefix"),
        (7, b"1h2m3.5s"),
        (7, b"0x_ff"),
        (7, b"http://[::1%eth0]:1,unix://a"),
        (8, b'a\\n"\xff\xe2\x98\x83'),
        (10, bytes(range(40))),
        *((10, bytes((0, *(0 for _ in range(place)), 1, value))) for place in range(10) for value in range(0, 28, 3)),
        *((11, bytes((number, *range(40)))) for number in range(4)),
        *((11, bytes((number, 0, 0, 1, value))) for number in range(4) for value in range(0, 28, 3)),
        (9, b"https://[::1]:2379,a:1,unix:///x"),
    ]
    return [bytes((number,)) + text for number, text in texts]


def run(data: bytes) -> bool:
    """Each is read, or refused with a sentence."""
    octets = Octets(data)
    read, refusals = octets.choice(READERS)
    try:
        read(octets.rest())
    except UnicodeError as error:
        raise AssertionError("a refusal that is no sentence") from error
    except refusals as refusal:
        if not str(refusal) and not isinstance(refusal, HelpAsked):
            raise AssertionError("a refusal without a sentence") from refusal
        return False
    return True
