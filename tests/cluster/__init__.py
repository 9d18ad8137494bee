"""Tests on real processes: whole nodes and clusters, started, broken and judged."""
