"""Quorate: a Raft-replicated, strongly consistent key-value store that speaks etcd's v3 API."""
