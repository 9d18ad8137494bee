"""PROCESS watch: watchers, their groups, and the delivery of events."""
