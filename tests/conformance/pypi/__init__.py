"""Programs around client libraries from PyPI whose generated code must not meet ours in one process."""
