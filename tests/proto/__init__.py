"""Tests of quorate.proto."""
