"""`flagpost demo`: its options; the demo itself is imported once they are read.

In: how long, how fast, how many visitors; optionally a Kafka of the user's. Out: exit code 0 only if every decision
is accounted for, 130 if Ctrl-C came before any was made.
"""

from __future__ import annotations

import sys

import click

from flagpost_consumer.demo.options import Interrupted, Options
from flagpost_consumer.terminal.echo import echo, echo_lines
from flagpost_consumer.terminal.extras import extra_missing
from flagpost_consumer.terminal.interrupts import noted_interrupts
from flagpost_consumer.terminal.numbers import Number

MOST_SECONDS, MOST_RATE = 86_400.0, 10_000.0
INTERRUPTED = 130
"""128 plus SIGINT, like shells."""


@click.command("demo")
@click.option(
    "--seconds",
    type=Number(1, MOST_SECONDS),
    default=20.0,
    show_default=True,
    help="How long to generate traffic.",
)
@click.option(
    "--rate", type=Number(0.1, MOST_RATE), default=50.0, show_default=True, help="Decisions per second."
)
@click.option(
    "--visitors", type=click.IntRange(min=1), default=200, show_default=True, help="Number of visitors."
)
@click.option("--json", "as_json", is_flag=True, help="Print only the reconciliation, as JSON.")
@click.option(
    "--bootstrap-servers",
    metavar="HOST:PORT",
    help="Use this Kafka instead of the embedded one. The demo creates its own topics and group there.",
)
def demo(seconds: float, rate: float, visitors: int, bootstrap_servers: str | None, *, as_json: bool) -> None:
    """Run the whole path on this machine: decisions of the Optimizely SDK, Kafka, the consumer, a stand-in for Pendo.

    At the end every decision is accounted for. Exit code 0 if the numbers add up, else 1.
    """
    if bootstrap_servers is not None and not bootstrap_servers.strip():
        raise click.UsageError("--bootstrap-servers is empty; give HOST:PORT")
    options = Options(seconds, rate, visitors, bootstrap_servers)
    try:
        with noted_interrupts() as interrupted:  # the bare except of a library could swallow an exception
            if not as_json:
                echo_lines(options.opening)
            from flagpost_consumer.demo.run import carry_out  # noqa: PLC0415 - takes a second

            adds_up = carry_out(options, interrupted, as_json=as_json)
    except ModuleNotFoundError as error:
        raise extra_missing("demo", error, "demo") from None
    except Interrupted:
        echo("stopped before the first decision", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(0 if adds_up else 1)
