"""Gateway and gRPC proxy: what they decide, and what they do between real clients and real clusters."""
