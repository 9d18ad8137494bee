"""Requests and profiles in cfssl's JSON, so that the files of existing guides serve as they are.

A request names a subject (`CN`, `hosts`, `names`, `key`), a signing configuration says for how long and for what a
profile is good. Only what decides a certificate is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from quorate.node.certificates import Purpose, Subject
from quorate.node.flags import duration_ns


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request as cfssl writes it."""

    subject: Subject
    expiry: timedelta | None  # of a CA; None where the request leaves it open


@dataclass(frozen=True, slots=True)
class Profile:
    """How a signing profile signs."""

    purpose: Purpose
    expiry: timedelta


def read_request(path: Path) -> Request:
    """A request from a file; ValueError names the field that cannot be used."""
    content = _object(path)
    key = content.get("key", {})
    names: dict[str, str] = {}
    for group in content.get("names", []):
        names.update({short: str(value) for short, value in group.items() if value})
    unknown = set(names) - {"C", "ST", "L", "O", "OU"}
    if unknown:
        raise ValueError(f"{path}: names has the unknown attribute {sorted(unknown)[0]}: use C, ST, L, O or OU")
    subject = Subject(
        common_name=str(content.get("CN", "")),
        hosts=tuple(host for host in content.get("hosts", []) if host),
        names=names,
        algorithm=str(key.get("algo", "ecdsa")),
        key_bits=int(key.get("size", 256)),
    )
    expiry = content.get("ca", {}).get("expiry")
    return Request(subject, _expiry(path, expiry) if expiry else None)


def read_profile(path: Path, name: str) -> Profile:
    """A profile of a signing configuration, `default` for the default; ValueError when there is none of that name."""
    signing = _object(path).get("signing", {})
    profiles: Mapping[str, Any] = signing.get("profiles", {})
    if name not in profiles and name != "default":
        raise ValueError(f"{path} has no profile {name}: it has {', '.join(sorted(profiles)) or 'none'}")
    chosen = profiles.get(name) or signing.get("default", {})
    usages = set(chosen.get("usages", []))
    expiry = chosen.get("expiry") or signing.get("default", {}).get("expiry") or "8760h"
    return Profile(_purpose(usages, chosen), _expiry(path, expiry))


def _purpose(usages: set[str], profile: Mapping[str, Any]) -> Purpose:
    if profile.get("ca_constraint", {}).get("is_ca"):
        return Purpose.CA
    serves, dials = "server auth" in usages, "client auth" in usages
    if serves and not dials:
        return Purpose.SERVER
    if dials and not serves:
        return Purpose.CLIENT
    return Purpose.PEER


def _expiry(path: Path, text: str) -> timedelta:
    try:
        return timedelta(microseconds=duration_ns(text) // 1000)
    except ValueError:
        raise ValueError(f'{path}: expiry "{text}" is not a duration such as 8760h') from None


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content
