"""Settings whose feature Quorate does not have: each is refused with one sentence instead of being ignored.

A feature that arrives takes its lines away; nothing else has to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorate.node.config import FEATURE_GATES, Config, feature_states

TLS: Final = "TLS is not available; use http URLs and a private network"
DISCOVERY: Final = "discovery is not available; list the members in --initial-cluster"
TRACING: Final = "distributed tracing is not available"

NOT_AVAILABLE: Final = {  # attribute -> why, when it has another value than its default
    **dict.fromkeys(
        [
            *(f"{peer}{kind}" for peer in ("", "peer_") for kind in ("cert_file", "key_file", "trusted_ca_file")),
            *(f"{peer}{kind}" for peer in ("", "peer_") for kind in ("client_cert_file", "client_key_file")),
            *("client_cert_auth", "client_crl_file", "client_cert_allowed_hostname", "auto_tls"),
            *("peer_client_cert_auth", "peer_crl_file", "peer_cert_allowed_cn", "peer_cert_allowed_hostname"),
            *("peer_auto_tls", "peer_skip_client_san_verification", "cipher_suites"),
            *("tls_min_version", "tls_max_version"),
        ],
        TLS,
    ),
    **dict.fromkeys(
        [
            *("discovery", "discovery_proxy", "discovery_srv", "discovery_srv_name"),
            *("discovery_token", "discovery_endpoints", "discovery_cert", "discovery_key", "discovery_cacert"),
            *("discovery_user", "discovery_password"),
        ],
        DISCOVERY,
    ),
    "listen_client_http_urls": "separate HTTP listeners are not available; gRPC and HTTP share --listen-client-urls",
    "listen_metrics_urls": "separate metrics listeners are not available; /metrics is on --listen-client-urls",
    "auth_token": "authentication is not available, so --auth-token can only be simple",
    "auto_compaction_retention": "automatic compaction is not available; compact with etcdctl",
    "corrupt_check_time": "the periodic corruption check is not available; compare with etcdctl endpoint hashkv",
    "force_new_cluster": "--force-new-cluster is not available; restore from a snapshot",
    "enable_pprof": "profiles are not available",
    "bootstrap_defrag_threshold_megabytes": "defragmentation at the start is not available",
    "memory_mlock": "locking memory is not available",
    "enable_distributed_tracing": TRACING,
    "distributed_tracing_address": TRACING,
    "distributed_tracing_service_name": TRACING,
    "distributed_tracing_instance_id": TRACING,
    "distributed_tracing_sampling_rate": TRACING,
}


def _secure_urls(config: Config) -> str | None:
    urls = [*config.listen_peer_urls, *config.listen_client_urls, *config.initial_advertise_peer_urls]
    for url in urls:
        if url.startswith(("https:", "unixs:")):
            return f"{url}: {TLS}"
        if url.startswith("unix:"):
            return f"{url}: listening on Unix sockets is not available"
    return None


def _feature_gates(config: Config) -> str | None:
    states = feature_states(config.feature_gates)
    changed = [name for name, default in FEATURE_GATES.items() if states[name] and not default]
    return f"feature gate {changed[0]} is not available" if changed else None


def _joining(config: Config) -> str | None:
    if config.initial_cluster_state == "existing":
        return "joining a running cluster is not available; start all members with --initial-cluster-state new"
    return None


def _log_streams(config: Config) -> str | None:
    if "stdout" in config.log_outputs and {"stderr", "default"} & set(config.log_outputs):
        return "--log-outputs cannot name stdout and stderr together"
    if config.enable_log_rotation and '"compress": true' in config.log_rotation_config_json:
        return "compressing rotated log files is not available"
    return None


CHECKS: Final[tuple[Callable[[Config], str | None], ...]] = (_secure_urls, _feature_gates, _joining, _log_streams)


def refusal(config: Config) -> str | None:
    """The first thing `config` asks for that is not available, as a sentence; None when all of it is."""
    for attribute, reason in NOT_AVAILABLE.items():
        if getattr(config, attribute) != Config.model_fields[attribute].default:
            return f"--{attribute.replace('_', '-')}: {reason}"
    sentences = (check(config) for check in CHECKS)
    return next(filter(None, sentences), None)
