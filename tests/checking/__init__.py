"""Judging histories of clusters, real or simulated, against the log of what was committed."""
