"""The command `flagpost-gateway`.

In: the command line. Out: an exit code: 0 after a clean stop, 1 if requests had to be given up, on a second signal or
a failure, 2 for settings that cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from flagpost_settings.metrics_in_memory import keep_metrics_in_memory


def main() -> NoReturn:
    """The entry point of the command."""
    config_path = _parsed().config
    keep_metrics_in_memory(os.environ)
    try:
        sys.exit(_run(config_path))
    except KeyboardInterrupt:  # it does not listen for signals yet
        sys.exit("Aborted!")


def _run(config_path: Path | None) -> int:
    try:
        from flagpost_publisher.gateway import program  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        sys.exit(f"flagpost-gateway needs {error.name}: pip install 'flagpost-publisher[gateway]'")
    return program.run(config_path, os.environ)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="flagpost-gateway",
        description="Accept events over HTTP from services in any language, and publish them to Kafka for Flagpost.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=os.environ.get("FLAGPOST_CONFIG"),
        help="the settings file (YAML); environment variables FLAGPOST_<SECTION>__<KEY> override it  "
        "[env: FLAGPOST_CONFIG]",
    )
    parser.add_argument(
        "--version", action="version", version=f"flagpost-gateway {version('flagpost-publisher')}"
    )
    return parser.parse_args()
