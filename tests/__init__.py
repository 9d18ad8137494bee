"""Tests: they mirror services/, beside cluster/ (real processes) and conformance/ (real clients)."""
