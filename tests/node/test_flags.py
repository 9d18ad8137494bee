# ruff: noqa: E501 - the texts stay whole so that they can be compared and searched
"""Go's flag syntax, the values of flags, and what --help and --version print."""

import pytest

from quorate.node import flags
from quorate.node.flags import (
    FLAGS,
    UsageError,
    duration_ms,
    duration_text,
    parse_arguments,
    read_urls,
    shown_arguments,
)

ETCD_FLAGS = [
    "name",
    "data-dir",
    "wal-dir",
    "snapshot-count",
    "snapshot-catchup-entries",
    "heartbeat-interval",
    "election-timeout",
    "initial-election-tick-advance",
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "listen-metrics-urls",
    "max-snapshots",
    "max-wals",
    "quota-backend-bytes",
    "backend-bbolt-freelist-type",
    "backend-batch-interval",
    "backend-batch-limit",
    "max-txn-ops",
    "max-request-bytes",
    "max-concurrent-streams",
    "grpc-keepalive-min-time",
    "grpc-keepalive-interval",
    "grpc-keepalive-timeout",
    "socket-reuse-port",
    "socket-reuse-address",
    "enable-grpc-gateway",
    "raft-read-timeout",
    "raft-write-timeout",
    "feature-gates",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "strict-reconfig-check",
    "pre-vote",
    "discovery",
    "discovery-proxy",
    "discovery-endpoints",
    "discovery-token",
    "discovery-dial-timeout",
    "discovery-request-timeout",
    "discovery-keepalive-time",
    "discovery-keepalive-timeout",
    "discovery-insecure-transport",
    "discovery-insecure-skip-tls-verify",
    "discovery-cert",
    "discovery-key",
    "discovery-cacert",
    "discovery-user",
    "discovery-password",
    "discovery-fallback",
    "discovery-srv",
    "discovery-srv-name",
    "auto-compaction-mode",
    "auto-compaction-retention",
    "v2-deprecation",
    "cert-file",
    "key-file",
    "trusted-ca-file",
    "client-cert-file",
    "client-key-file",
    "client-crl-file",
    "client-cert-auth",
    "client-cert-allowed-hostname",
    "auto-tls",
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-client-cert-auth",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-auto-tls",
    "peer-skip-client-san-verification",
    "self-signed-cert-validity",
    "cipher-suites",
    "tls-min-version",
    "tls-max-version",
    "cors",
    "host-whitelist",
    "auth-token",
    "bcrypt-cost",
    "auth-token-ttl",
    "enable-pprof",
    "metrics",
    "logger",
    "log-outputs",
    "log-level",
    "log-format",
    "enable-log-rotation",
    "log-rotation-config-json",
    "warning-apply-duration",
    "warning-unary-request-duration",
    "corrupt-check-time",
    "compact-hash-check-time",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "watch-progress-notify-interval",
    "downgrade-check-time",
    "max-learners",
    "memory-mlock",
    "bootstrap-defrag-threshold-megabytes",
    "enable-distributed-tracing",
    "distributed-tracing-address",
    "distributed-tracing-service-name",
    "distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "force-new-cluster",
    "unsafe-no-fsync",
    "config-file",
    "version",
]


def sample_of(name: str) -> str:
    samples = {"bool": "true", "int": "7", "duration": "7s", "urls": "http://127.0.0.1:7", "words": "a,b", "str": "x"}
    return "new" if name == "initial-cluster-state" else samples[flags.kind_of(name)]


@pytest.mark.parametrize("name", ETCD_FLAGS)
def test_every_flag_of_etcd_is_known_and_takes_a_value(name: str) -> None:
    assert parse_arguments([f"--{name}={sample_of(name)}"]).values == {name: sample_of(name)}


def test_only_two_flags_are_not_etcds() -> None:
    assert set(FLAGS) - set(ETCD_FLAGS) == {"run-dir", "api-workers"}


def test_one_dash_two_dashes_equals_sign_and_next_word_are_the_same() -> None:
    expected = {"name": "a"}
    for arguments in (["-name", "a"], ["--name", "a"], ["-name=a"], ["--name=a"]):
        assert parse_arguments(arguments).values == expected


def test_boolean_flag_does_not_take_the_next_word() -> None:
    line = parse_arguments(["--pre-vote", "false"])
    assert (line.values, line.positional) == ({"pre-vote": "true"}, "false")
    assert parse_arguments(["--pre-vote=false"]).values == {"pre-vote": "false"}


def test_last_of_two_equal_flags_wins() -> None:
    assert parse_arguments(["--name=a", "--name=b"]).values == {"name": "b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["--debug"], "flag provided but not defined: -debug"),
        (["--name"], "flag needs an argument: -name"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---name"], "bad flag syntax: ---name"),
        (["--max-txn-ops=-1"], 'invalid value "-1" for flag -max-txn-ops: parse error'),
        (["--max-txn-ops=many"], 'invalid value "many" for flag -max-txn-ops: parse error'),
        (
            ["--max-concurrent-streams=4294967296"],
            'invalid value "4294967296" for flag -max-concurrent-streams: value out of range',
        ),
        (["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error'),
        (["--grpc-keepalive-min-time=5"], 'invalid value "5" for flag -grpc-keepalive-min-time: parse error'),
        (["--initial-cluster-state=old"], 'invalid value "old" for flag -initial-cluster-state: invalid value'),
        (
            ["--listen-peer-urls=localhost:1"],
            'invalid value "localhost:1" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: localhost:1',
        ),
        (["--enable-v2=true"], 'invalid boolean value "true" for -enable-v2: only false is supported'),
    ],
)
def test_wrong_command_line_is_refused_in_gos_words(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(arguments)
    assert message == str(caught.value)


@pytest.mark.parametrize("argument", ["--enable-v2=false", "--logger=zap", "--proxy=off", "--snapshot", "--force"])
def test_flags_of_old_articles_that_ask_for_nothing_are_accepted(argument: str) -> None:
    assert len(parse_arguments([argument]).values) == 1


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("0", 0), ("10m", 600_000), ("1h2m3.5s", 3_723_500), ("100us", 1), ("-1s", -1000), (".5s", 500), ("1ns", 1)],
)
def test_go_durations_become_milliseconds(text: str, milliseconds: int) -> None:
    assert milliseconds == duration_ms(text)


@pytest.mark.parametrize("text", ["", "5", "s", "1s2", "1 s", "1d", "--1s"])
def test_what_is_no_go_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="parse error"):
        duration_ms(text)


def test_durations_are_printed_as_go_prints_them() -> None:
    assert ["0s", "100ms", "5s", "10m0s", "2h0m0s", "1.5s"] == [
        duration_text(value) for value in (0, 100, 5000, 600_000, 7_200_000, 1500)
    ]


def test_urls_are_sorted_and_each_kept_once() -> None:
    assert read_urls("http://b:2,http://a:1, http://b:2") == ["http://a:1", "http://b:2"]
    assert (flags.host_of("http://[::1]:80"), flags.port_of("http://[::1]:80")) == ("::1", 80)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tcp://a:1", "URL scheme must be http, https, unix, or unixs: tcp://a:1"),
        ("http://a", 'URL address does not have the form "host:port": http://a'),
        ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
        ("http://a:65536", "port of a URL must be at most 65535: http://a:65536"),
    ],
)
def test_wrong_urls_are_refused_in_etcds_words(url: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_urls(url)
    assert message == str(caught.value)


def test_help_names_every_flag_in_order_under_its_heading() -> None:
    lines = [line.split()[0] for line in flags.help_text().splitlines() if line.startswith("  --")]
    assert {f"--{name}" for name in ETCD_FLAGS} <= set(lines)
    assert len(lines) == len(set(lines))


def test_version_has_etcds_four_lines() -> None:
    labels = [line.partition(":")[0] for line in flags.version_text("1.2.3").splitlines()]
    assert labels == ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch"]


def test_a_command_line_is_shown_without_its_passwords() -> None:
    given = ["quorate", "--discovery-password", "s", "--discovery-user=root:s", "-discovery-password=s", "--name", "n"]
    shown = ["quorate", "--discovery-password", "***", "--discovery-user=root:***", "-discovery-password=***"]
    assert shown_arguments(given) == [*shown, "--name", "n"]
