"""LIBRARY: what applications import; needs nothing of the server."""
