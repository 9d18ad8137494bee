"""Tests of services/storage."""
