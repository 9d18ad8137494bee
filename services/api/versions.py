"""/version: the etcd API this member speaks, and Quorate's own version in a field of its own."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from quorate.api.node_view import NodeView
from quorate.node.flags import ETCD_VERSION


def _installed() -> str:
    try:
        return version("quorate")
    except PackageNotFoundError:
        return "0+unknown"


QUORATE_VERSION: Final = _installed()


class Versions(BaseModel):
    """Versions of one member and its cluster."""

    etcdserver: str = Field(description="Release of etcd whose API the member speaks.", examples=[ETCD_VERSION])
    etcdcluster: str = Field(description="Version the members have agreed on, or not_decided.", examples=["3.6.0"])
    storage: str = Field(description="Version of the storage format, or unknown.", examples=["3.6.0"])
    quorate: str = Field(description="Version of this software.", examples=["0.1.0"])


def router(node: NodeView) -> APIRouter:
    """The page."""
    pages = APIRouter(tags=["Member"])

    @pages.get("/version", summary="Versions of this member and its cluster")
    async def versions() -> Versions:
        cluster = await node.cluster_version()
        return Versions(
            etcdserver=ETCD_VERSION,
            etcdcluster=cluster or "not_decided",
            storage=cluster or "unknown",
            quorate=QUORATE_VERSION,
        )

    return pages
