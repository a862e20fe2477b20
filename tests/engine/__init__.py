"""The engine against real servers and against the reference."""
