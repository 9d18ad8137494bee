"""PROCESS storage: the only writer of the MVCC database."""
