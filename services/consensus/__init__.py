"""PROCESS consensus: Raft, the log on disk, peers and membership."""
