"""Sans-I/O HTTP/2 server and gRPC framing: bytes in, bytes and events out."""
