"""How tests build programs in Go: those of examples/, of benchmarks/, and what uses Segment's library."""

from __future__ import annotations

from typing import Final

UNOPTIMISED: Final = "-gcflags=all=-N -l"
"""The first build includes all dependencies and Go's own library: without optimisation it takes a third less, and
programs that are built with the same flags share it.
"""
