"""Fakes with behaviour, shared by the tests."""
