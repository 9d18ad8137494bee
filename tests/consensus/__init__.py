"""Tests of the consensus service."""
