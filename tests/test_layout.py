"""The package list of pyproject.toml names exactly the packages on disk."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_package_on_disk_is_packaged() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    services = ROOT / "services"
    found = {".".join(["quorate", *init.parent.relative_to(services).parts]) for init in services.rglob("__init__.py")}
    assert found == set(declared)
