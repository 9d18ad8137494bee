"""The watch process: who waits for which keys, and what each of them has been told."""
