"""What the tests share that ask an etcd and a Quorate the same."""

import os
from typing import Final

from quorate.proto import rpc_pb2 as rpc
from tests.support.rpc import Caller

_ALONE: Final = os.environ.get("SAME_ANSWERS_SEED")
SEEDS: Final = [int(_ALONE)] if _ALONE else list(range(int(os.environ.get("SAME_ANSWERS_SEEDS", "12"))))
TTL_SLACK_S: Final = 20  # time passes between the servers


def revision_of(caller: Caller) -> int:
    return int(caller.unary("KV/Range", rpc.RangeRequest(key=b"\0")).header.revision)


def clear(caller: Caller) -> None:
    """Neither keys nor leases; the revision goes on."""
    caller.unary("KV/DeleteRange", rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    for lease in caller.unary("Lease/LeaseLeases", rpc.LeaseLeasesRequest()).leases:
        caller.unary("Lease/LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease.ID))
