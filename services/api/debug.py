"""/debug/vars: what Go's expvar shows of etcd, as far as this process can say it."""

import os
import resource
import sys

from fastapi import APIRouter

from quorate.api.node_view import NodeView


def router(node: NodeView) -> APIRouter:
    """The page."""
    pages = APIRouter(tags=["Member"])

    @pages.get("/debug/vars", summary="Command line, memory and Raft state of this member")
    async def variables() -> dict[str, object]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cmdline": sys.orig_argv,
            "memstats": {"Sys": usage.ru_maxrss * 1024},
            "file_descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "raft.status": node.raft_state(),
            "pid": os.getpid(),
        }

    return pages
