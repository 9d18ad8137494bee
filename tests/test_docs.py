"""What the documents list is what there is."""

import re
from pathlib import Path

import click
import pytest
import yaml

from quorate.api import asgi, grpc_connection, http1, listener, ring, watches
from quorate.api.http2.limits import Limits, Strain
from quorate.api.v3rpc import recipes, watch, watch_stream
from quorate.ctl import quoratectl, quorateutl
from quorate.node import settings, validation
from quorate.node.flags import FLAGS, parse_arguments
from quorate.node.launch import PROXIES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_contributing_lists_every_make_target() -> None:
    assert make_targets() == set(
        re.findall(r"^\| `make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_targets_and_files_that_exist(document: Path) -> None:
    text = document.read_text()
    assert make_targets().issuperset(re.findall(r"`make ([a-z-]+)`", text))
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / link).exists(), link


def test_testing_names_only_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[^`\s]+\.(?:py|txt))(?:::(test_\w+))?`", (ROOT / "docs" / "testing.md").read_text())
    assert named
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text() or not test, f"{path}::{test}"


def commands(program: str) -> list[str]:
    """Every call of a program in the documents, as one line without remarks."""
    found = []
    for document in DOCUMENTS:
        text = re.sub(r"\\\n\s*", "", document.read_text())
        found += re.findall(rf"^(?:    )?(?:\$ )?{program} ((?:-|[a-z]+ ).*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert found
    return found


@pytest.mark.parametrize("command", sorted(set(commands("quorate"))))
def test_every_call_of_quorate_has_flags_and_values_that_are_taken(command: str) -> None:
    words = re.sub(r"(-urls) …", r"\1 http://10.0.0.1:2380", command).replace("=…,", "=http://10.0.0.1:2380,").split()
    if words[0] in PROXIES:
        return
    words = [word for word in words if word != "…"]
    line = parse_arguments(words)
    assert line.positional is None
    if "config-file" not in line.values:
        settings.gather(line, {}).config()


@pytest.mark.parametrize(("program", "tree"), [("quorateutl", quorateutl.main), ("quoratectl", quoratectl.cli)])
def test_every_call_of_a_command_has_flags_that_exist(program: str, tree: click.Group) -> None:
    for command in commands(program):
        words, chain = command.split(), list[click.Command]([tree])
        for word in words:
            within = chain[-1]
            if isinstance(within, click.Group) and (found := within.get_command(click.Context(within), word)):
                chain.append(found)
        assert len(chain) > 1, f"{program} {command}"
        known = {flag for each in chain for option in each.params for flag in (*option.opts, *option.secondary_opts)}
        given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        assert known.issuperset(given) or "--" in words, f"{program} {command}: {set(given) - known}"


def test_operations_explains_the_flags_that_are_not_etcds() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    own = {flag.name for flag in FLAGS.values() if flag.heading == "Quorate"}
    assert own == set(re.findall(r"^\| `--([a-z-]+)`", text, re.MULTILINE))


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    listed = set(re.findall(r"\]\((\d{4}-[^)]+\.md)\)", (folder / "README.md").read_text()))
    assert {path.name for path in folder.glob("[0-9]*.md")} == listed


def test_sample_configuration_is_accepted() -> None:
    found = settings.gather(parse_arguments([f"--config-file={ROOT}/deploy/etcd.conf.yml"]), {})
    validation.check(found.config())  # raises the first thing that is wrong
    assert not [note for note in found.notes if note.level != "info"]


def test_kubernetes_manifest_starts_the_node_with_flags_that_exist() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    stateful = next(document for document in documents if document["kind"] == "StatefulSet")
    arguments = stateful["spec"]["template"]["spec"]["containers"][0]["args"]
    config = settings.gather(parse_arguments([word.replace("$(POD)", "quorate-0") for word in arguments]), {}).config()
    assert set(config.initial_members) == {"quorate-0", "quorate-1", "quorate-2"}


def test_the_containers_have_one_image() -> None:
    """Each build gives another image, and `docker compose up` begins containers of another than the last anew."""
    services = [yaml.safe_load((ROOT / f"docker-compose{kind}.yml").read_text())["services"] for kind in ("", ".tls")]
    assert [[name for name, service in each.items() if "build" in service] for each in services] == [["node1"], []]


@pytest.mark.parametrize("node", ["node1", "node2", "node3"])
def test_the_compose_files_give_settings_that_make_sense(node: str) -> None:
    plain, tls = (yaml.safe_load((ROOT / f"docker-compose{kind}.yml").read_text()) for kind in ("", ".tls"))
    expected = {"http": plain["services"][node]["environment"]}
    expected["https"] = expected["http"] | tls["services"][node]["environment"]
    for scheme, environment in expected.items():
        given = {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for name, value in environment.items()}
        config = settings.gather(parse_arguments([]), given).config()
        validation.check(config)
        urls = [*config.listen_client_urls, *config.listen_peer_urls, *config.advertise_client_urls]
        urls += [url for members in config.initial_members.values() for url in members]
        assert {url.partition("://")[0] for url in urls} == {scheme}
        assert config.initial_members[node] == list(config.initial_advertise_peer_urls)


def test_the_tls_part_of_a_configuration_file_says_the_same_as_the_flags(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (block,) = re.findall(r"^```yaml\n(client-transport-security:.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "conf.yml").write_text(block)
    (command,) = re.findall(r"^```sh\nquorate (--name m1 .*?)```", text, re.DOTALL | re.MULTILINE)
    by_file = settings.gather(parse_arguments([f"--config-file={tmp_path}/conf.yml"]), {}).config()
    by_flags = settings.gather(parse_arguments(command.replace("\\\n", " ").split()), {}).config()
    for name in ("cert_file", "key_file", "client_cert_auth", "trusted_ca_file"):
        for setting in (name, f"peer_{name}"):
            assert getattr(by_file, setting) == getattr(by_flags, setting), setting
            assert getattr(by_file, setting)


def test_the_bounds_of_the_threat_model_are_those_of_the_code() -> None:
    mib = 1 << 20
    bounds = {
        "connections of a worker": f"{listener.CONNECTIONS_MAX:,}",
        "time to say the first octets": f"{listener.FIRST_OCTETS_TIMEOUT_S:g} s; {http1.HEAD_TIMEOUT_S:g} s; "
        f"{asgi.BODY_TIMEOUT_S:g} s",
        "headers of a request": f"{http1.HEAD_BYTES_MAX // 1024} KiB",
        "a message, and what is unfinished": f"{Limits().partial_bytes_max // mib} MiB",
        "HTTP/2 frames that bring": f"{Strain.BURST:,} at once, {Strain.RATE_PER_S:,} a second",
        "answers that wait for a client": f"{grpc_connection.HOLD_BYTES // mib} MiB",
        "unfinished requests and waiting answers": f"{grpc_connection.HELD_BYTES_MAX // mib // 1024} GiB",
        "streams of a worker": f"{grpc_connection.STREAMS_MAX:,}",
        "requests of a Watch stream": f"{watch_stream.ASKED_MAX}, {watch.ASKED_MAX:,}",
        "watchers of a worker": f"{watches.PLACES_MAX:,}",
        "calls of a worker without": f"{ring.WAITING_MAX:,}",
        "locks and campaigns": f"{recipes.CALLS_MAX:,}",
    }
    rows = re.findall(r"^\| (.*?) \| (.*?) \|", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
    for what, bound in bounds.items():
        (shown,) = (shown for subject, shown in rows if subject.startswith(what))
        assert bound in shown, what
