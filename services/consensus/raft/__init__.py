"""The Raft algorithm: pure, without I/O, clock, randomness or logging of its own."""
