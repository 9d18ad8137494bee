"""COMMANDS quoratectl and quorateutl."""
