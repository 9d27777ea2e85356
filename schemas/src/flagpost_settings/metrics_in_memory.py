"""Keeps a program's metrics in its own memory, whatever the surroundings ask of the Prometheus client.

In: the environment of a program that has not imported prometheus_client yet. Out: the same without the variables by
which that client decides, at import, to keep values in files for several processes.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

MULTIPROCESS_VARIABLES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""They are meant for services of several processes beside us; each program of ours is one process."""


def keep_metrics_in_memory(environ: MutableMapping[str, str]) -> None:
    """Take the variables out of `environ`."""
    for name in MULTIPROCESS_VARIABLES:
        environ.pop(name, None)
