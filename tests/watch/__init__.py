"""Tests of the watch process."""
