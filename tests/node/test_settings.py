"""Command line before environment before default; a file before everything."""

from pathlib import Path

import pytest

from quorate.node import settings
from quorate.node.config import Config
from quorate.node.flags import parse_arguments
from quorate.node.settings import CONFLICT, Conflict, Settings
from quorate.node.validation import Invalid


def gather(*arguments: str, **environment: str) -> Settings:
    return settings.gather(parse_arguments(list(arguments)), environment)


def from_file(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "etcd.conf.yml"
    path.write_text(text)
    return gather("--config-file", str(path)).config()


def messages(found: Settings, level: str) -> list[str]:
    return [note.message for note in found.notes if note.level == level]


def test_environment_fills_what_the_command_line_leaves_out() -> None:
    config = gather("--name=a", ETCD_MAX_TXN_OPS="5", ETCD_PRE_VOTE="false").config()
    assert (config.name, config.max_txn_ops, config.pre_vote) == ("a", 5, False)


def test_used_variable_is_noted() -> None:
    note = gather(ETCD_NAME="a").notes[0]
    assert note.message == "recognized and used environment variable"
    assert note.fields == {"variable-name": "ETCD_NAME", "variable-value": "a"}


@pytest.mark.parametrize("value", ["b", "a", ""])
def test_variable_for_a_flag_that_is_given_is_fatal(value: str) -> None:
    with pytest.raises(Conflict) as caught:
        gather("--name=a", ETCD_NAME=value)
    assert (str(caught.value), caught.value.variable) == (CONFLICT, "ETCD_NAME")


def test_unknown_variable_is_noted() -> None:
    found = gather(ETCD_SERVICE_HOST="10.0.0.1", ETCD_UNSUPPORTED_ARCH="x", PATH="/bin")
    assert messages(found, "warn") == ["unrecognized environment variable"]
    assert found.notes[0].fields == {"environment-variable": "ETCD_SERVICE_HOST=10.0.0.1"}


def test_a_secret_of_an_unknown_variable_is_not_noted() -> None:
    (note,) = gather(ETCD_ROOT_PASSWORD="battery-staple").notes
    assert note.fields == {"environment-variable": "ETCD_ROOT_PASSWORD=***"}


def test_version_in_the_environment_is_ignored_with_a_warning() -> None:
    assert messages(gather(ETCD_VERSION="v3.4"), "warn") == ["cannot set special environment variable"]


def test_wrong_value_in_the_environment_names_the_variable() -> None:
    with pytest.raises(Invalid) as caught:
        gather(ETCD_MAX_TXN_OPS="x")
    assert str(caught.value) == 'invalid value "x" for ETCD_MAX_TXN_OPS: parse error'


def test_explicit_client_urls_without_advertised_ones_leave_none() -> None:
    assert gather("--listen-client-urls=http://127.0.0.1:1").config().advertise_client_urls == []


def test_experimental_name_fills_the_new_setting_with_a_warning() -> None:
    found = gather("--experimental-max-learners=3", "--experimental-initial-corrupt-check")
    assert found.config().max_learners == 3
    assert found.config().feature_enabled("InitialCorruptCheck")
    assert len(messages(found, "warn")) == 2


def test_old_and_new_name_together_are_refused() -> None:
    with pytest.raises(Invalid, match="both --experimental-max-learners and --max-learners flags are set"):
        gather("--experimental-max-learners=3", "--max-learners=3")
    with pytest.raises(Invalid, match="cannot specify both flags"):
        gather("--experimental-initial-corrupt-check", "--feature-gates=InitialCorruptCheck=true")


def test_short_peer_timeouts_are_raised_to_five_seconds() -> None:
    found = gather("--raft-read-timeout=1s")
    assert found.config().raft_read_timeout == 5000
    assert messages(found, "info") == ["raft-read-timeout increased to minimum value: 5s"]


def test_member_that_listens_everywhere_advertises_the_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "default_route_address", lambda: "10.1.2.3")
    config = gather("--listen-peer-urls=http://0.0.0.0:2390").config()
    assert config.initial_advertise_peer_urls == ["http://10.1.2.3:2390"]
    assert config.initial_members == {"default": ["http://10.1.2.3:2390"]}


def test_file_replaces_flags_and_environment(tmp_path: Path) -> None:
    path = tmp_path / "etcd.conf.yml"
    path.write_text("name: infra1\n")
    config = gather(f"--config-file={path}", "--name=other", ETCD_MAX_TXN_OPS="5").config()
    assert (config.name, config.max_txn_ops) == ("infra1", 128)
    assert gather(ETCD_CONFIG_FILE=str(path)).config().name == "infra1"


def test_file_takes_etcds_keys_and_types(tmp_path: Path) -> None:
    config = from_file(
        tmp_path,
        """
        name: infra1
        listen-client-urls: http://127.0.0.1:2379,http://127.0.0.1:4001
        heartbeat-interval: 50
        grpc-keepalive-interval: 3000000000
        auto-compaction-retention: 1
        log-outputs: [stderr, /tmp/etcd.log]
        pre-vote: false
        unknown-key: ignored
        client-transport-security: {cert-file: c.pem, client-cert-auth: true, allowed-hostname: [a, b]}
        peer-transport-security: {trusted-ca-file: ca.pem, allowed-cn: [n]}
        discovery-config: {token: t, client: {endpoints: [e1]}}
        """,
    )
    assert config.listen_client_urls == ["http://127.0.0.1:2379", "http://127.0.0.1:4001"]
    assert (config.heartbeat_interval, config.grpc_keepalive_interval) == (50, 3000)
    assert (config.auto_compaction_retention, config.pre_vote) == ("1", False)
    assert config.log_outputs == ["stderr", "/tmp/etcd.log"]
    assert (config.cert_file, config.client_cert_auth) == ("c.pem", True)
    assert (config.client_cert_allowed_hostname, config.peer_cert_allowed_cn) == (["a", "b"], ["n"])
    assert (config.peer_trusted_ca_file, config.discovery_token) == ("ca.pem", "t")


def test_unknown_keys_of_a_file_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "quorate.yml"
    path.write_text("nmae: infra1\npeer-transport-security: {cert-flie: c.pem}\nenable-v2: false\n")
    noted = [note.fields["key"] for note in gather(f"--config-file={path}").notes if note.level == "warn"]
    assert noted == ["nmae", "peer-transport-security: cert-flie"]


def test_passwords_of_the_environment_are_not_noted() -> None:
    found = gather(ETCD_DISCOVERY_USER="root:secret", ETCD_DISCOVERY_PASSWORD="hidden")
    values = {note.fields["variable-value"] for note in found.notes}
    assert values == {"root:***", "***"}


def test_file_may_be_json(tmp_path: Path) -> None:
    assert from_file(tmp_path, '{"name": "j", "max-txn-ops": 9}').max_txn_ops == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpc-keepalive-interval: 10m", "cannot unmarshal string into Go struct field"),
        ("max-txn-ops: many", "of type int"),
        ("pre-vote: 1", "cannot unmarshal number into Go struct field"),
        ("name: [a]", "cannot unmarshal array into Go struct field"),
        ("listen-peer-urls: localhost:1", "unexpected error setting up listen-peer-urls: URL scheme must be"),
        ("log-outputs: stderr", r"of type \[\]string"),
        ("a: [", "error converting YAML to JSON: yaml:"),
        ("a: !!float", "a value is not what its tag says"),
        ("a: !!timestamp x", "a value is not what its tag says"),
        ("just words", "error unmarshaling JSON"),
        ("peer-transport-security: 1", "invalid peer-transport-security"),
    ],
)
def test_wrong_file_is_refused_in_etcds_words(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        from_file(tmp_path, text)


def test_missing_file_is_named() -> None:
    with pytest.raises(Invalid, match=r"open /nowhere/x\.yml: no such file or directory"):
        gather("--config-file=/nowhere/x.yml")


def test_the_discovery_part_of_a_file_says_all_that_the_flags_can(tmp_path: Path) -> None:
    (tmp_path / "conf.yml").write_text(
        """
        discovery-config:
          token: t
          client:
            endpoints: ["https://e1:2379", "https://e2:2379"]
            dial-timeout: 3000000000
            request-timeout: 4000000000
            keepalive-time: 7000000000
            keepalive-timeout: 8000000000
            secure: {cert: c.pem, key: k.pem, cacert: ca.pem, insecure-transport: false, insecure-skip-tls-verify: true}
            auth: {username: u, password: p}
        """
    )
    by_file = gather(f"--config-file={tmp_path}/conf.yml").config()
    by_flags = gather(
        *("--discovery-token=t", "--discovery-endpoints=https://e1:2379,https://e2:2379"),
        *("--discovery-dial-timeout=3s", "--discovery-request-timeout=4s"),
        *("--discovery-keepalive-time=7s", "--discovery-keepalive-timeout=8s"),
        *("--discovery-cert=c.pem", "--discovery-key=k.pem", "--discovery-cacert=ca.pem"),
        *("--discovery-insecure-transport=false", "--discovery-insecure-skip-tls-verify"),
        *("--discovery-user=u", "--discovery-password=p"),
    ).config()
    assert by_file == by_flags


@pytest.mark.parametrize("text", ["discovery-config: 7", "discovery-config: {client: {endpoints: {a: 1}}}"])
def test_a_discovery_part_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "conf.yml").write_text(text)
    with pytest.raises(Invalid):
        gather(f"--config-file={tmp_path}/conf.yml")
