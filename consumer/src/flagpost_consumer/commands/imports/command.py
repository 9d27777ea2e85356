"""The command `flagpost import`.

In: a file, options, settings. Out: events on the events topic; each refused row by its line on stderr and a summary
on stdout, or with `--json` both in one document there. Exit code 0: every row was imported, and with `--wait` Pendo
has it; 1: some were not; 2: options, settings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import click

from flagpost_consumer.commands.cli import SettingsLoader
from flagpost_consumer.commands.imports.awaited import Awaited
from flagpost_consumer.commands.imports.field_question import say_missing_fields
from flagpost_consumer.commands.imports.files import Source, opened
from flagpost_consumer.commands.imports.options import Options, with_options
from flagpost_consumer.commands.imports.producing import DryRun, RowProducer
from flagpost_consumer.commands.imports.reading import Reading, read_rows
from flagpost_consumer.commands.imports.reporting import FileReport, JsonReport, StderrReport
from flagpost_consumer.commands.imports.row_events import RowEvents
from flagpost_consumer.commands.imports.row_report import RowReport
from flagpost_consumer.commands.imports.rows import FileProblem
from flagpost_consumer.commands.imports.run import Run, Sink
from flagpost_consumer.commands.imports.waiting import Unended, Waiting, ledger_from
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.settings import Needs, Settings
from flagpost_consumer.terminal.echo import echo
from flagpost_consumer.terminal.interrupts import noted_interrupts
from flagpost_consumer.terminal.progress import measured


@click.command("import")
@with_options
@click.pass_obj
def import_rows(settings_for: SettingsLoader, /, **given: Any) -> None:  # noqa: ANN401 - as `with_options` says
    """Publish the rows of a CSV or JSON lines file to the events topic; `-` reads from stdin.

    Refused rows are listed by line number, and the others are imported. A row's content determines its event id, so a
    second import within dedupe.ttl_seconds changes nothing at Pendo.
    """
    options = Options(**given)
    options.check()
    settings = settings_for(Needs.NOTHING if options.dry_run else Needs.KAFKA)
    document = JsonReport() if options.as_json else None
    with ExitStack() as stack, _explained(options.name):
        source = stack.enter_context(opened(options.path))
        reading = read_rows(source, options, settings)
        missing_fields = say_missing_fields(reading.fields, options, settings.pendo)
        run = Run([document or StderrReport(sys.stderr)])
        if options.refused_path is not None:
            run.reports.append(stack.enter_context(closing(FileReport(options.refused_path))))
        ends = stack.enter_context(_ends(options, settings, run)) if options.wait else None
        on_taken = None if ends is None else ends.awaited.add
        sink = DryRun() if options.dry_run else RowProducer(settings.kafka, run.refuse_record, on_taken)
        ended_by = _carry_out(run, sink, reading, source, options.name)
        unended = None if ends is None else _wait(ends, ended_by)
    more = {"missing_fields": missing_fields, **({} if ends is None else {"ended": ends.told})}
    _summarize(run, sink, options, document, complete=ended_by is None, more=more)
    if ends is not None and document is None:
        echo(ends.line)
    _warn_of_repeats(reading.events, options, settings)
    if ended_by is not None:
        so_far = f"{sink.acknowledged:,} of the {run.rows:,} rows read so far are imported"
        raise click.ClickException(f"{ended_by}. {so_far}; run the same command again")
    if unended is not None:
        raise click.ClickException(unended.why)
    sys.exit(0 if not run.refused and (ends is None or ends.report.is_well) else 1)


class _Ends(NamedTuple):
    """How the rows of an import end."""

    awaited: Awaited
    report: RowReport
    waiting: Waiting

    @property
    def told(self) -> dict[str, dict[str, int]]:
        """Rows that Kafka has, by outcome and reason."""
        told: dict[str, dict[str, int]] = {}
        for (outcome, reason), count in sorted(self.report.counts.items()):
            told.setdefault(outcome, {})[reason] = count
        return told

    @property
    def line(self) -> str:
        """The same for people."""
        parts = [
            f"{count:,} {outcome}{'' if reason == 'ok' else f' ({reason})'}"
            for (outcome, reason), count in sorted(self.report.counts.items())
        ]
        return f"how the imported rows ended: {', '.join(parts) or 'none has ended'}"


@contextmanager
def _ends(options: Options, settings: Settings, run: Run) -> Iterator[_Ends]:
    """Prepare to wait: what is written to the ledger from now on may be about this import."""
    began, awaited = ledger_from(settings.kafka), Awaited()
    with closing(RowReport(options.report_path)) as report:
        run.reports.append(report)
        waiting = Waiting(settings, began, awaited, report, patience_seconds=options.wait_seconds)
        yield _Ends(awaited, report, waiting)


def _wait(ends: _Ends, ended_by: str | None) -> Unended | None:
    """Wait for the rows of a complete import; for one that ended early, report which rows were imported."""
    if ended_by is not None:
        ends.waiting.leave(Unended("import_ended", f"the import ended early: {ended_by}"))
        return None
    with noted_interrupts() as interrupted:
        try:
            return ends.waiting.wait(interrupted)
        except KafkaUnavailable as error:
            unended = Unended(
                "kafka", f"Kafka: {error}. The rows are in Kafka; flagpost tail shows how they end"
            )
            ends.waiting.leave(unended)
            return unended


def _carry_out(run: Run, sink: Sink, reading: Reading, source: Source, name: str) -> str | None:
    """Import all rows; returns what ended it early."""
    ended_by = None
    with noted_interrupts() as interrupted, measured(f"{name} imported", source.total_bytes) as tell:
        try:
            try:
                run.carry_out(reading, sink, lambda: tell(source.read_bytes), interrupted)
            except FileProblem as problem:
                ended_by = f"{name}: {problem}"
            if interrupted():
                ended_by = "interrupted"
                echo("interrupted: waiting for Kafka to acknowledge the rows already sent", err=True)
            sink.finish()
        except KafkaUnavailable as error:
            return f"Kafka: {error}"
    return ended_by


def _summarize(
    run: Run,
    sink: Sink,
    options: Options,
    document: JsonReport | None,
    *,
    complete: bool,
    more: Mapping[str, object],
) -> None:
    imported = sink.acknowledged
    if document is not None:
        ending = {"complete": complete, "dry_run": options.dry_run}
        document.end({"rows": run.rows, "imported": imported, **ending, **more})
    else:
        done = "would be imported" if options.dry_run else "imported"
        echo(f"{run.rows:,} rows: {imported:,} {done}, {run.refused:,} refused")


def _warn_of_repeats(events: RowEvents, options: Options, settings: Settings) -> None:
    """Warn of events that are sent again on a second import, because the consumer has forgotten them by then."""
    ttl_seconds = settings.dedupe.ttl_seconds
    if options.type_name == "track" and events.earliest_ms < time.time() * 1000 - ttl_seconds * 1000:
        echo(
            f"Some of these events occurred more than {ttl_seconds:,g} s ago (dedupe.ttl_seconds): "
            "if the file is imported again, Pendo may get them twice; see docs/import.md",
            err=True,
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Report what prevents an import in one line, with exit code 1."""
    try:
        yield
    except FileProblem as problem:
        raise click.ClickException(f"{name}: {problem}") from None
    except KafkaUnavailable as error:
        raise click.ClickException(f"Kafka: {error}") from None
