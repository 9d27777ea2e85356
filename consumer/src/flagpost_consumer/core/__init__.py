"""The engine: what decides. It takes records, answers and the time, and imports no I/O library."""
