"""The entry point of the command `flagpost`: it imports nothing first, so that Ctrl-C ends it without a traceback.

In: the command line. Out: an exit code.
"""

from __future__ import annotations

import signal


def main() -> None:
    """The entry point of the command."""
    # In the background of a script SIGINT is ignored, and stays so.
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flagpost_consumer.commands.cli import main as run  # noqa: PLC0415 - Ctrl-C is to end these imports at once

    if heeded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
