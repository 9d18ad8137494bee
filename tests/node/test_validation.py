# ruff: noqa: E501 - the texts stay whole so that they can be compared and searched
"""Settings that make no sense together, and settings that ask for what is not there."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from quorate.node import idle, validation
from quorate.node.config import Config
from quorate.node.validation import Invalid

URL = "http://127.0.0.1:2379"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heartbeat_interval": 0}, "--heartbeat-interval must be >0 (set to 0ms)"),
        ({"election_timeout": 0}, "--election-timeout must be >0 (set to 0ms)"),
        (
            {"election_timeout": 499},
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        ({"election_timeout": 50001}, "--election-timeout[50001ms] is too long, and should be set less than 50000ms"),
        ({"listen_peer_urls": ["http://foo:1"]}, "expected IP in URL for binding (http://foo:1)"),
        (
            {"listen_client_http_urls": [URL], "listen_client_urls": [URL]},
            f"cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {URL}",
        ),
        (
            {"initial_advertise_peer_urls": ["http://:1"]},
            '--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))',
        ),
        (
            {"advertise_client_urls": ["http://:1"]},
            '--advertise-client-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))',
        ),
        (
            {"advertise_client_urls": []},
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ({"auto_compaction_mode": "x"}, 'unknown auto-compaction-mode "x"'),
        ({"auto_compaction_mode": ""}, "undefined auto-compaction-mode"),
        ({"auto_compaction_retention": "soon"}, "error parsing CompactionRetention: soon"),
        (
            {"auto_compaction_mode": "revision", "auto_compaction_retention": "1h"},
            "error parsing CompactionRetention: 1h",
        ),
        ({"initial_cluster_state": "x"}, 'unexpected clusterState "x"'),
        (
            {"discovery": "http://x", "initial_cluster": "a=http://b:1"},
            'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"',
        ),
        (
            {"discovery_fallback": "proxy"},
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"',
        ),
        ({"discovery_token": "t"}, "both --discovery-endpoints and --discovery-token must be set"),
        ({"initial_cluster": "nourl"}, 'error setting up initial cluster: empty URL given for "nourl"'),
        ({"logger": "capnslog"}, 'unknown logger option "capnslog"'),
        ({"log_level": "loud"}, 'unrecognized level: "loud"'),
        ({"log_format": "xml"}, "unknown log format: xml"),
        (
            {"enable_log_rotation": True},
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            {"enable_log_rotation": True, "log_outputs": ["/x"], "log_rotation_config_json": "[1]"},
            "improperly formatted log rotation config: it has to be an object with maxsize and so on",
        ),
        (
            {"enable_log_rotation": True, "log_outputs": ["/x"], "log_rotation_config_json": '{"maxsize": "1"}'},
            "improperly formatted log rotation config: maxsize has to be a whole number",
        ),
        (
            {"enable_log_rotation": True, "log_outputs": ["/x"], "log_rotation_config_json": '{"compress": 1}'},
            "improperly formatted log rotation config: compress has to be true or false",
        ),
        (
            {"tls_min_version": "TLS1.3", "tls_max_version": "TLS1.2"},
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            {"tls_min_version": "TLS1.3", "cipher_suites": ["TLS_X"]},
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            {"listen_client_urls": ["https://127.0.0.1:1"]},
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            {"listen_metrics_urls": ["https://127.0.0.1:1"]},
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            {"feature_gates": "LeaseCheckpointPersist=true"},
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        ({"feature_gates": "Nope=true"}, "unrecognized feature gate: Nope"),
        (
            {"feature_gates": "CompactHashCheck=true", "compact_hash_check_time": 0},
            "--compact-hash-check-time must be >0 (set to 0s)",
        ),
        ({"watch_progress_notify_interval": 99}, "--watch-progress-notify-interval must be at least 100ms"),
    ],
)
def test_senseless_settings_are_refused_in_etcds_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        validation.check(Config(**values))
    assert message == str(caught.value)


def test_defaults_are_valid() -> None:
    validation.check(Config())  # raises the first thing that is wrong


def test_unusual_sizes_are_warned_about() -> None:
    config = Config(name="a", max_request_bytes=11 * 1024 * 1024, quota_backend_bytes=9 * 1024**3)
    assert len(validation.warnings(config)) == 2


@pytest.mark.parametrize(("given", "used"), [(3, 10), (4, 4), (31, 31), (32, 10), (-1, 10)])
def test_a_cost_that_bcrypt_does_not_have_is_replaced_by_the_default(given: int, used: int) -> None:
    config = Config(name="a", bcrypt_cost=given)
    assert config.hash_cost == used
    assert len(validation.warnings(config)) == (given != used)


SERVICES = Path(idle.__file__).parent.parent
READERS = [
    *(
        path
        for service in ("api", "consensus", "discovery", "storage", "watch")
        for path in (SERVICES / service).rglob("*.py")
    ),
    *(SERVICES / "node" / name for name in ("lifecycle.py", "logs.py", "supervise.py", "tls.py")),
]


@pytest.mark.parametrize("attribute", [setting.name for setting in fields(Config)])
def test_each_setting_is_read_or_said_to_have_no_effect(attribute: str) -> None:
    if attribute in idle.WITHOUT_EFFECT:
        return
    if attribute == "api_workers":  # read by the launcher
        return
    assert is_read(attribute)


def is_read(name: str) -> bool:
    """Where services are, or in a property or method of the settings that is read there."""
    pattern = re.compile(rf"\.{name}\b")
    if any(pattern.search(path.read_text()) for path in READERS):
        return True
    inside = re.split(r"\n    def ", (SERVICES / "node" / "config.py").read_text())[1:]
    return any(is_read(part.partition("(")[0]) for part in inside if pattern.search(part.partition("\n\n    @")[0]))


def test_changed_setting_without_effect_is_named_with_its_reason() -> None:
    assert idle.sentences(Config()) == []
    assert idle.sentences(Config(max_wals=3)) == [
        "--max-wals has no effect: log files are dropped as soon as nobody needs them"
    ]


def test_tls_settings_of_plain_urls_are_named_as_ignored() -> None:
    config = Config(
        cert_file="c", key_file="k", peer_client_cert_auth=True, listen_client_urls=["https://127.0.0.1:1", URL]
    )
    assert validation.ignored_certificates(config) == [
        (
            "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL",
            "peer-url",
            "http://localhost:2380",
        ),
        ("scheme is HTTP while key and cert files are present; ignoring key and cert files", "client-url", URL),
    ]
