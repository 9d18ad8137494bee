"""Tests of quorate.wire."""
