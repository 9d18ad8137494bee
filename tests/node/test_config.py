"""The settings model: defaults, absolute places, and the way from the launcher to a service."""

import stat
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from quorate.node import config
from quorate.node.config import Config


def test_rendered_settings_are_read_back_equal(tmp_path: Path) -> None:
    settings = Config(name="infra1", data_dir=str(tmp_path / "d"), listen_client_urls=["http://127.0.0.1:1"])
    path = tmp_path / "config.json"
    config.render(settings, path)
    assert config.load(path) == settings
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_data_directory_defaults_to_the_name_in_the_working_directory() -> None:
    assert str(Path.cwd() / "infra1.etcd") == Config(name="infra1").data_dir


def test_run_directory_is_short_and_differs_between_data_directories(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200)
    first, second = Config(data_dir=str(deep / "1")), Config(data_dir=str(deep / "2"))
    assert first.run_dir != second.run_dir
    assert len(first.run_dir) < 80
    assert Config(data_dir=str(deep / "1")).run_dir == first.run_dir


def test_settings_cannot_be_changed_or_invented() -> None:
    settings = Config()
    with pytest.raises(FrozenInstanceError):
        settings.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Config(no_such_flag=1)  # type: ignore[call-arg]


def test_zero_quota_is_two_gibibytes_and_a_negative_one_is_none() -> None:
    assert Config().quota_bytes == 2147483648
    assert Config(quota_backend_bytes=-1).quota_bytes is None
    assert Config(quota_backend_bytes=5).quota_bytes == 5


def test_a_member_may_have_several_peer_urls() -> None:
    settings = Config(initial_cluster="a=http://1:1,b=http://2:1,a=http://3:1")
    assert settings.initial_members == {"a": ["http://1:1", "http://3:1"], "b": ["http://2:1"]}


def test_feature_gates_have_etcds_defaults() -> None:
    assert Config().feature_enabled("TxnModeWriteWithSharedBuffer")
    assert not Config().feature_enabled("LeaseCheckpoint")
    assert Config(feature_gates="AllAlpha=true").feature_enabled("LeaseCheckpoint")


def test_the_local_address_of_members_is_the_first_that_others_can_reach() -> None:
    urls = ["http://localhost:1", "http://127.0.0.1:1", "http://0.0.0.0:1", "http://10.1.2.3:1", "http://10.1.2.4:1"]
    assert Config(initial_advertise_peer_urls=urls).member_local_host == ""
    assert (
        Config(initial_advertise_peer_urls=urls, feature_gates="SetMemberLocalAddr=true").member_local_host
        == "10.1.2.3"
    )
