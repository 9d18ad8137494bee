"""What crosses a local socket: messages, batching links, and the one catalogue of errors."""
