"""What a request needs of its caller: the table of etcd's v3 API, walked down to the last nested operation.

A put or delete that returns the previous pair also reads; a put that moves its key under a lease touches every key of
that lease; the operations and compares of BOTH branches of a transaction are judged before any of them runs
(CVE-2026-33343: nested operations were once skipped).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from quorate.proto import rpc_pb2
from quorate.storage.auth import AuthStore
from quorate.wire.identity import Caller

KeysOfLease = Callable[[int], Iterable[bytes]]


class Access:
    """Judges requests; `keys_of_lease` names the keys attached to a lease at this place of the log."""

    def __init__(self, auth: AuthStore, keys_of_lease: KeysOfLease) -> None:
        self._auth = auth
        self._keys_of_lease = keys_of_lease

    def check_range(self, caller: Caller | None, request: rpc_pb2.RangeRequest) -> None:
        self._auth.check_keys(caller, False, request.key, request.range_end)

    def check_put(self, caller: Caller | None, request: rpc_pb2.PutRequest) -> None:
        auth = self._auth
        auth.check_keys(caller, True, request.key)
        if request.prev_kv:
            auth.check_keys(caller, False, request.key)
        if request.lease:
            self.check_lease(caller, True, request.lease)

    def check_delete(self, caller: Caller | None, request: rpc_pb2.DeleteRangeRequest) -> None:
        self._auth.check_keys(caller, True, request.key, request.range_end)
        if request.prev_kv:
            self._auth.check_keys(caller, False, request.key, request.range_end)

    def check_txn(self, caller: Caller | None, request: rpc_pb2.TxnRequest) -> None:
        """Both branches and all compares, at every depth."""
        waiting = [request]
        while waiting:
            txn = waiting.pop()
            for compare in txn.compare:
                self._auth.check_keys(caller, False, compare.key, compare.range_end)
            for operation in (*txn.success, *txn.failure):
                match operation.WhichOneof("request"):
                    case "request_range":
                        self.check_range(caller, operation.request_range)
                    case "request_put":
                        self.check_put(caller, operation.request_put)
                    case "request_delete_range":
                        self.check_delete(caller, operation.request_delete_range)
                    case "request_txn":
                        waiting.append(operation.request_txn)

    def check_lease(self, caller: Caller | None, write: bool, lease_id: int) -> None:
        """Every key attached to the lease, one by one."""
        self._auth.check_user(caller)
        for key in self._keys_of_lease(lease_id):
            self._auth.check_keys(caller, write, key)

    def check_all_leases(self, caller: Caller | None, lease_ids: Iterable[int]) -> None:
        """LeaseLeases shows every lease, so it asks for READ on every attached key; root is exempt."""
        self._auth.check_user(caller)
        if self._auth.is_root(caller):
            return
        for lease_id in lease_ids:
            self.check_lease(caller, False, lease_id)
