"""Tests of quorate.api."""
