"""Whole clusters on a virtual clock, replayed by seed."""
