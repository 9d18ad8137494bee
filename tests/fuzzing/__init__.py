"""Random and mutated octets for everything that reads what others wrote; `python -m tests.fuzzing` runs it for long."""
