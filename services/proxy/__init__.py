"""COMMANDS `quorate gateway` and `quorate grpc-proxy`: what stands between clients and a cluster."""
