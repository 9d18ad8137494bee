"""What any process of a node needs to be a process: configuration, logs, lifecycle, metrics."""
