"""Whether settings make sense together, in etcd's order and with etcd's words."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Final

from quorate.node import flags
from quorate.node.cipher_suites import CIPHER_SUITES
from quorate.node.config import Config, feature_states
from quorate.node.logs import LEVELS, STREAMS

ELECTION_TIMEOUT_MS_MAX: Final = 50_000
WATCH_PROGRESS_MS_MIN: Final = 100
REQUEST_BYTES_RECOMMENDED: Final = 10 * 1024 * 1024
QUOTA_BYTES_RECOMMENDED: Final = 8 * 1024**3


class Invalid(Exception):  # noqa: N818 - it completes the sentence "failed to verify flags"
    """What is wrong, in etcd's words."""


def check(config: Config) -> None:
    """Raise Invalid for the first thing that is wrong with `config`."""
    for part in CHECKS:
        part(config)


def warnings(config: Config) -> list[str]:
    """What works but is probably not meant."""
    found = []
    if config.max_request_bytes > REQUEST_BYTES_RECOMMENDED:
        found.append("exceeded recommended request limit")
    if config.quota_backend_bytes > QUOTA_BYTES_RECOMMENDED:
        found.append("quota exceeds the recommended maximum of 8 GiB")
    if config.hash_cost != config.bcrypt_cost:
        found.append("use default bcrypt cost instead of the invalid given cost")
    if config.name == "default":
        found.append("it is recommended to set the member name with --name")
    return found


def ignored_certificates(config: Config) -> list[tuple[str, str, str]]:
    """Plain URLs whose TLS settings have no effect: the log's sentence, the field's name, and the URL."""
    found = []
    for kind, urls, prefix in (
        ("peer", config.listen_peer_urls, "peer_"),
        ("client", [*config.listen_client_urls, *config.listen_client_http_urls], ""),
    ):
        named = [f"{prefix}{name}" for name in ("cert_file", "key_file", "trusted_ca_file", "client_cert_file")]
        flag = f"--{prefix.replace('_', '-')}client-cert-auth"
        for url in urls:
            if url.startswith(("https:", "unixs:")):
                continue
            if any(getattr(config, name) for name in named):
                sentence = "scheme is HTTP while key and cert files are present; ignoring key and cert files"
                found.append((sentence, f"{kind}-url", url))
            if getattr(config, f"{prefix}client_cert_auth"):
                sentence = f"scheme is HTTP while {flag} is enabled; ignoring client cert auth for this URL"
                found.append((sentence, f"{kind}-url", url))
    return found


def _logging(config: Config) -> None:
    if config.logger != "zap":
        raise Invalid(f'unknown logger option "{config.logger}"')
    if config.log_format not in ("json", "console"):
        raise Invalid(f"unknown log format: {config.log_format}")
    if config.log_level not in LEVELS:
        raise Invalid(f'unrecognized level: "{config.log_level}"')
    if config.enable_log_rotation:
        if sum(output not in STREAMS for output in config.log_outputs) != 1:
            raise Invalid("--log-outputs requires a single file path when --log-rotate-config-json is defined")
        _rotation(config.log_rotation_config_json)


def _rotation(text: str) -> None:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise Invalid(f"improperly formatted log rotation config: {error}") from None
    if not isinstance(settings, dict):
        raise Invalid("improperly formatted log rotation config: it has to be an object with maxsize and so on")
    for names, kind, wanted in (
        (("maxsize", "maxage", "maxbackups"), int, "a whole number"),
        (("localtime", "compress"), bool, "true or false"),
    ):
        for name in names:
            value = settings.get(name, kind())
            if type(value) is not kind or value < 0:
                raise Invalid(f"improperly formatted log rotation config: {name} has to be {wanted}")


def _binding(config: Config) -> None:
    for url in [*config.listen_peer_urls, *config.listen_client_urls, *config.listen_metrics_urls]:
        host = flags.host_of(url)
        if url.startswith("unix") or host == "localhost":
            continue
        try:
            ipaddress.ip_address(host.partition("%")[0] or "0.0.0.0")  # noqa: S104 - an empty host binds everywhere
        except ValueError:
            raise Invalid(f"expected IP in URL for binding ({url})") from None
    for url in set(config.listen_client_urls) & set(config.listen_client_http_urls):
        raise Invalid(f"cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}")


def _advertising(config: Config) -> None:
    advertised = {
        "--initial-advertise-peer-urls": config.initial_advertise_peer_urls,
        "--advertise-client-urls": config.advertise_client_urls,
    }
    for name, urls in advertised.items():
        for url in urls:
            if not url.startswith("unix") and not flags.host_of(url):
                text = ",".join(urls)
                raise Invalid(f'{name} "{text}" must be "host:port" (unexpected empty host ({url}))')


def _bootstrap(config: Config) -> None:
    ways = [config.initial_cluster, config.discovery, config.discovery_endpoints, config.discovery_srv]
    if sum(bool(way) for way in ways) > 1:
        names = '"initial-cluster", "discovery", "discovery-endpoints" or "discovery-srv"'
        raise Invalid(f"multiple discovery or bootstrap flags are set. Choose one of {names}")
    if config.discovery_fallback == "proxy":
        raise Invalid('v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"')
    if config.discovery_fallback != "exit":
        raise Invalid(f'invalid value "{config.discovery_fallback}" for discovery-fallback')
    if config.initial_cluster_state not in ("new", "existing"):
        raise Invalid(f'unexpected clusterState "{config.initial_cluster_state}"')
    if bool(config.discovery_token) != bool(config.discovery_endpoints):
        raise Invalid("both --discovery-endpoints and --discovery-token must be set")
    try:
        config.initial_members  # noqa: B018 - parsing is the check
        for urls in config.initial_members.values():
            flags.read_urls(",".join(urls))
    except ValueError as error:
        raise Invalid(f"error setting up initial cluster: {error}") from None


def _timing(config: Config) -> None:
    heartbeat, election = config.heartbeat_interval, config.election_timeout
    if heartbeat <= 0:
        raise Invalid(f"--heartbeat-interval must be >0 (set to {heartbeat}ms)")
    if election <= 0:
        raise Invalid(f"--election-timeout must be >0 (set to {election}ms)")
    if 5 * heartbeat > election:
        raise Invalid(
            f"--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        )
    if election > ELECTION_TIMEOUT_MS_MAX:
        limit = ELECTION_TIMEOUT_MS_MAX
        raise Invalid(f"--election-timeout[{election}ms] is too long, and should be set less than {limit}ms")


def _advertised_clients(config: Config) -> None:
    if config.listen_client_urls and not config.advertise_client_urls:
        raise Invalid("--advertise-client-urls is required when --listen-client-urls is set explicitly")


def _compaction(config: Config) -> None:
    mode, retention = config.auto_compaction_mode, config.auto_compaction_retention
    if not mode:
        raise Invalid("undefined auto-compaction-mode")
    if mode not in ("periodic", "revision"):
        raise Invalid(f'unknown auto-compaction-mode "{mode}"')
    try:
        if int(retention) < 0:
            raise Invalid(f"error parsing CompactionRetention: {retention}")
    except ValueError:
        try:
            duration_allowed = mode == "periodic"
            if not duration_allowed or flags.duration_ns(retention) < 0:
                raise ValueError
        except ValueError:
            raise Invalid(f"error parsing CompactionRetention: {retention}") from None
    if config.feature_enabled("CompactHashCheck") and config.compact_hash_check_time <= 0:
        raise Invalid("--compact-hash-check-time must be >0 (set to 0s)")


def _tls(config: Config) -> None:
    order = ["", "TLS1.2", "TLS1.3"]
    lowest, highest = config.tls_min_version, config.tls_max_version
    for version in (lowest, highest):
        if version not in order:
            raise Invalid(f'unexpected TLS version "{version}", must be one of: TLS1.2, TLS1.3')
    if highest and order.index(lowest) > order.index(highest):
        raise Invalid(f"min version ({lowest}) is greater than max version ({highest})")
    if config.cipher_suites and lowest == "TLS1.3":
        raise Invalid("cipher suites cannot be configured when only TLS1.3 is enabled")
    unknown = [suite for suite in config.cipher_suites if suite not in CIPHER_SUITES]
    if unknown:
        raise Invalid(f'unexpected TLS cipher suite "{unknown[0]}"')
    if config.peer_cert_allowed_cn and config.peer_cert_allowed_hostname:
        raise Invalid("AllowedCNs and AllowedHostnames are mutually exclusive")
    if config.auto_tls or (config.cert_file and config.key_file):
        return
    for url in [*config.listen_client_urls, *config.listen_client_http_urls]:
        if flags.is_encrypted(url):
            needed = "TLS key/cert (--cert-file, --key-file) must be provided"
            raise Invalid(f"{needed} for client url {url} with HTTPS scheme")
    if any(flags.is_encrypted(url) for url in config.listen_metrics_urls):
        raise Invalid("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url")


def _features(config: Config) -> None:
    try:
        feature_states(config.feature_gates)
    except ValueError as error:
        raise Invalid(str(error)) from None


def _watching(config: Config) -> None:
    if config.watch_progress_notify_interval < WATCH_PROGRESS_MS_MIN:
        limit = flags.duration_text(WATCH_PROGRESS_MS_MIN)
        raise Invalid(f"--watch-progress-notify-interval must be at least {limit}")


def _words(config: Config) -> None:
    if config.metrics not in ("basic", "extensive"):
        raise Invalid(f'unknown metrics level "{config.metrics}"')
    if config.backend_bbolt_freelist_type not in ("map", "array"):
        raise Invalid(f'unknown freelist type "{config.backend_bbolt_freelist_type}"')


CHECKS: Final[tuple[Callable[[Config], None], ...]] = (
    _logging,
    _binding,
    _advertising,
    _bootstrap,
    _timing,
    _advertised_clients,
    _features,
    _compaction,
    _tls,
    _watching,
    _words,
)
