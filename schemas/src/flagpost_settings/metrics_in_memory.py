"""Keeps a program's metrics in its own memory, whatever the environment tells the Prometheus client.

In: the environment of a program that has not imported prometheus_client yet. Out: the same without the variables that
make the client, at import, keep values in files for several processes.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

MULTIPROCESS_VARIABLES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""They are meant for neighbouring services of several processes; each program of ours is one process."""


def keep_metrics_in_memory(environ: MutableMapping[str, str]) -> None:
    """Remove the variables from `environ`."""
    for name in MULTIPROCESS_VARIABLES:
        environ.pop(name, None)
