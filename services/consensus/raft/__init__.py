"""The Raft core: pure, deterministic, driven by `driver`; no I/O, no clock, no randomness of its own."""
