"""How looking for the other founders fails, in etcd's words."""

from __future__ import annotations

from typing import Final

SIZE_NOT_FOUND: Final = "discovery: size key not found"
SIZE_BAD: Final = "discovery: size key is bad"
FULL: Final = "discovery: cluster is full"
DUPLICATE: Final = "discovery: found duplicate id"
INVALID_URL: Final = "discovery: invalid peer URL"


class DiscoveryFailed(Exception):  # noqa: N818 - it names the outcome
    """There will be no cluster. One sentence."""


class ServiceLost(Exception):  # noqa: N818 - it names the finding
    """The discovery service does not answer as it should; it may do so later."""
