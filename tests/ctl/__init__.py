"""Tests of services/ctl."""
