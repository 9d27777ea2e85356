"""Thin shells around the engine: each does one kind of I/O and decides nothing."""
