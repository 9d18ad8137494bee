"""Rebuild the generated code beside the .proto files: `python -m quorate.proto.generate [--check]`.

The generated files are checked in so that an installation needs no compiler; `--check` fails when
they are not what the .proto files say. The comments of the .proto files go to descriptions.json,
because compiled descriptors lose them and the API documentation needs them.
"""

import argparse
import filecmp
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "descriptions.json")


def main() -> int:
    """Write the generated files, or with --check compare them; the result is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m quorate.proto.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    only_check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = compile_into(Path(scratch))
        different = sorted(compare(fresh, HERE))
        if only_check:
            for name in different:
                print(f"{name} differs from the .proto files", file=sys.stderr)
            return 1 if different else 0
        for name in different:
            (HERE / name).unlink(missing_ok=True)
            if (fresh / name).exists():
                shutil.copyfile(fresh / name, HERE / name)
    return 0


def compile_into(root: Path) -> Path:
    """Compile all .proto files below `root` and return the directory with the generated files."""
    package = root / "quorate" / "proto"
    package.mkdir(parents=True)
    for source in sorted(HERE.glob("*.proto")):
        shutil.copyfile(source, package / source.name)
    described = root / "descriptors"
    arguments = [
        "protoc",
        f"--proto_path={root}",
        f"--python_out={root}",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).with_name('protoc-gen-mypy')}",
        f"--mypy_out=quiet:{root}",
        f"--descriptor_set_out={described}",
        "--include_source_info",
        *(f"quorate/proto/{source.name}" for source in sorted(package.glob("*.proto"))),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    descriptions = dict(sorted(read_comments(described.read_bytes())))
    (package / "descriptions.json").write_text(json.dumps(descriptions, indent=1, ensure_ascii=False) + "\n")
    return package


def compare(fresh: Path, present: Path) -> set[str]:
    """Names of the generated files that differ or exist on one side only."""
    names = {path.name for pattern in GENERATED for side in (fresh, present) for path in side.glob(pattern)}
    same, _, _ = filecmp.cmpfiles(fresh, present, sorted(names), shallow=False)
    return names - set(same)


def read_comments(serialized: bytes) -> Iterator[tuple[str, str]]:
    """(full name, comment) of every commented declaration of a FileDescriptorSet with source info."""
    for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file:
        for location in file.source_code_info.location:
            comment = location.leading_comments or location.trailing_comments
            name = name_at(file, list(location.path))
            if name and comment:
                yield name, " ".join(comment.split())


def name_at(file: descriptor_pb2.FileDescriptorProto, path: list[int]) -> str | None:
    """Full name of the declaration a source path points at; None for anything without a name."""
    here: object = file
    name = file.package
    for number, index in zip(path[::2], path[1::2], strict=False):
        fields = here.DESCRIPTOR.fields_by_number  # type: ignore[attr-defined]
        children = getattr(here, fields[number].name)
        if not fields[number].is_repeated or fields[number].message_type is None:
            return None
        here = children[index]
        name = f"{name}.{here.name}"  # type: ignore[attr-defined]
    return name if path and len(path) % 2 == 0 else None


if __name__ == "__main__":
    sys.exit(main())
