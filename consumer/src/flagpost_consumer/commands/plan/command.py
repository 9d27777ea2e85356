"""The command `flagpost plan`.

In: a load, settings and options that win over them. Out: a forecast on stdout; exit code 0: it holds, 1: it does not,
2: options, settings.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from flagpost_consumer.commands.cli import SETTINGS_EXIT_CODE, SettingsLoader
from flagpost_consumer.commands.plan import report
from flagpost_consumer.commands.plan.charts import svg
from flagpost_consumer.commands.plan.costs import (
    SHIPPED,
    Calibration,
    CalibrationError,
    default_file,
    load,
    save,
)
from flagpost_consumer.commands.plan.forecast import MIB, Forecast, Wanted, forecast
from flagpost_consumer.commands.plan.measured import MeasuredServiceError
from flagpost_consumer.commands.plan.pod import Pendo
from flagpost_consumer.commands.plan.traffic import Load
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafkaError
from flagpost_consumer.service.garbage import calm_collection
from flagpost_consumer.settings import Needs, Settings, planned_policy
from flagpost_consumer.terminal.echo import echo, echo_json, echo_json_text, echo_lines
from flagpost_consumer.terminal.numbers import Number
from flagpost_consumer.terminal.progress import watched

Command = TypeVar("Command", bound=Callable[..., object])

MOST_SKEW = 5.0
MOST = 1_000_000_000
A_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command, by the names of its parameters. None: use the settings' value."""

    rate: float | None
    backlog: int
    visitors: int
    skew: float
    flags: int
    partitions: int
    pods: int | None
    latency_ms: float
    jitter_ms: float
    max_connections: int | None
    visitor_interval_seconds: float | None
    track_requests_per_minute: float | None
    metadata_requests_per_minute: float | None
    dedupe_ttl_seconds: float | None
    memory_limit_mib: float
    seconds: float
    most_decisions: int
    seed: int
    calibration_file: Path | None
    calibrate: bool
    svg_file: Path | None
    as_json: bool

    @property
    def file(self) -> Path:
        """Where the calibration is kept."""
        return self.calibration_file or default_file(os.environ)

    def load(self, rate: float) -> Load:
        """The load of the application."""
        return Load(rate, self.visitors, self.skew, self.flags, self.partitions, self.backlog)

    def policy(self, settings: Policy) -> Policy:
        """The settings by which the engine decides, changed by the options."""
        limits = _changed(
            settings.limits,
            max_connections=self.max_connections,
            track_requests_per_minute=self.track_requests_per_minute,
            metadata_requests_per_minute=self.metadata_requests_per_minute,
        )
        delivery = _changed(settings.delivery, visitor_interval_seconds=self.visitor_interval_seconds)
        dedupe = _changed(settings.dedupe, ttl_seconds=self.dedupe_ttl_seconds)
        return settings.model_copy(update={"limits": limits, "delivery": delivery, "dedupe": dedupe})

    def wanted(self, rate: float, settings: Settings, measured: Calibration) -> Wanted:
        """The parameters of the simulation."""
        return Wanted(
            load=self.load(rate),
            policy=self.policy(planned_policy(settings)),
            costs=measured.costs,
            pendo=Pendo(self.latency_ms / 1000, self.jitter_ms / 1000),
            pods=self.pods,
            seconds=self.seconds,
            memory_limit_bytes=self.memory_limit_mib * MIB,
            most_decisions=self.most_decisions,
            seed=self.seed,
            decodes_all=bool(settings.metrics.flags),
        )


Section = TypeVar("Section", bound=Any)


def _changed(section: Section, **given: float | None) -> Section:
    """A section of the settings, changed by the options."""
    update = {name: value for name, value in given.items() if value is not None}
    return cast("Section", section.model_copy(update=update))


def _number(least: float, most: float = float(MOST), *, above: bool = False) -> Number:
    return Number(least, most, min_open=above)


_COUNT = click.IntRange(1, MOST)
_PARAMETERS = (
    click.option(
        "--rate", type=_number(0, 10_000_000), help="Decisions per second, of all services together."
    ),
    click.option(
        "--backlog",
        type=click.IntRange(0, 100_000_000),
        default=0,
        help="Decisions that are already waiting at the start.",
    ),
    click.option("--visitors", type=_COUNT, default=100_000, show_default=True, help="Number of visitors."),
    click.option(
        "--skew",
        type=_number(0, MOST_SKEW),
        default=0.0,
        show_default=True,
        help="How unequally active visitors are: the exponent of a Zipf distribution; 0: all equally.",
    ),
    click.option(
        "--flags", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Number of flags."
    ),
    click.option(
        "--partitions",
        type=click.IntRange(1, 10_000),
        default=24,
        show_default=True,
        help="Partitions of the events topic.",
    ),
    click.option(
        "--pods", type=click.IntRange(1, 10_000), help="Number of consumers.  [default: as many as needed]"
    ),
    click.option(
        "--latency-ms",
        type=_number(0, 60_000),
        default=50.0,
        show_default=True,
        help="How long Pendo takes to answer.",
    ),
    click.option(
        "--jitter-ms",
        type=_number(0, 60_000),
        default=5.0,
        show_default=True,
        help="Random latency in addition: the mean of an exponential distribution.",
    ),
    click.option("--max-connections", type=_COUNT, help="Overrides pendo.max_connections."),
    click.option(
        "--visitor-interval-seconds",
        type=_number(0, A_DAY_SECONDS),
        help="Overrides delivery.visitor_interval_seconds.",
    ),
    click.option(
        "--track-requests-per-minute",
        type=_number(0, above=True),
        help="Overrides pendo.track_requests_per_minute.",
    ),
    click.option(
        "--metadata-requests-per-minute",
        type=_number(0, above=True),
        help="Overrides pendo.metadata_requests_per_minute.",
    ),
    click.option(
        "--dedupe-ttl-seconds", type=_number(0, 30 * A_DAY_SECONDS), help="Overrides dedupe.ttl_seconds."
    ),
    click.option(
        "--memory-limit-mib",
        type=_number(1),
        default=512.0,
        show_default=True,
        help="Memory limit of a pod; the default is the chart's.",
    ),
    click.option(
        "--seconds",
        type=_number(10, A_DAY_SECONDS),
        default=60.0,
        show_default=True,
        help="Virtual time to simulate.",
    ),
    click.option(
        "--sample",
        "most_decisions",
        type=click.IntRange(1_000, 100_000_000),
        default=150_000,
        show_default=True,
        help="Simulate at most about this many decisions; with more, only some partitions are simulated.",
    ),
    click.option(
        "--seed",
        type=int,
        default=1,
        show_default=True,
        help="Random seed: the same seed gives the same forecast.",
    ),
    click.option(
        "--calibration",
        "calibration_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The file with the measured costs.  [default: $XDG_STATE_HOME/flagpost/calibration.json]",
    ),
    click.option(
        "--calibrate",
        is_flag=True,
        help="First measure the costs on this machine; takes about three minutes.",
    ),
    click.option(
        "--svg",
        "svg_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write the charts to this file.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


def with_options(command: Command) -> Command:
    """Add the options to a command."""
    for parameter in reversed(_PARAMETERS):
        command = parameter(command)
    return command


@click.command("plan")
@with_options
@click.pass_obj
def plan(settings_for: SettingsLoader, /, **given: Any) -> None:  # noqa: ANN401 - the options, by name
    """Estimate what a load needs: pods, memory, CPU, requests to Pendo, and how late events are.

    The consumer's real engine processes random decisions in virtual time. Exit code 1 if the load is too high for
    these pods and settings.
    """
    options = Options(**given)
    if options.rate is None and not options.calibrate:
        raise click.UsageError("give --rate (decisions per second) or --calibrate")
    if options.rate == 0 and not options.backlog:
        raise click.UsageError("--rate 0 needs a --backlog")
    settings = settings_for(Needs.NOTHING)
    with _explained():
        measured = _measured(options)
    if options.rate is None:
        _print_calibration(options, measured)
        return
    if options.svg_file is not None:
        _write(options.svg_file, "")  # before a minute's work, not after it
    with _calm_garbage_collection():
        foreseen = forecast(
            options.wanted(options.rate, settings, measured), partial(_shown, "simulated, steps")
        )
    _print(options, foreseen, measured)
    sys.exit(1 if foreseen.problems else 0)


def _measured(options: Options) -> Calibration:
    if not options.calibrate:
        return load(options.file) or SHIPPED
    from flagpost_consumer.commands.plan import calibration  # noqa: PLC0415 - runs the service, which takes a while

    measured = calibration.calibrate(partial(_shown, "trials"))
    save(options.file, measured)
    echo(f"The costs were written to {options.file}.", err=True)
    return measured


class Unusable(click.ClickException):
    """A file that an option names cannot be used."""

    exit_code = SETTINGS_EXIT_CODE


@contextmanager
def _explained() -> Iterator[None]:
    """Report missing costs in one line."""
    try:
        yield
    except CalibrationError as error:
        raise Unusable(str(error)) from None
    except MeasuredServiceError as error:
        raise click.ClickException(str(error)) from None
    except EmbeddedKafkaError as error:
        raise click.ClickException(f"this machine cannot be measured: {error}") from None


@contextmanager
def _calm_garbage_collection() -> Iterator[None]:
    """Collect garbage like the service: simulated objects live long."""
    thresholds = gc.get_threshold()
    calm_collection()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


Step = TypeVar("Step")


def _shown(what: str, steps: Sequence[Step]) -> Iterator[Step]:
    return watched(steps, what, len(steps))


def _print_calibration(options: Options, measured: Calibration) -> None:
    if options.as_json:
        echo_json_text(measured.model_dump_json().encode() + b"\n")
        return
    for name, value in measured.costs.model_dump().items():
        echo(f"{name:<24} {value:12,.2f}")
    echo_lines(f"\n{report.provenance(measured)}")


def _print(options: Options, foreseen: Forecast, measured: Calibration) -> None:
    if options.svg_file is not None:
        _write(options.svg_file, svg(report.charts(foreseen)))
    if options.as_json:
        echo_json(report.as_json(foreseen, measured))
    else:
        echo_lines(report.text(foreseen, measured))


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from None
