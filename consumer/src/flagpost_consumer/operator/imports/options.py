"""The options of `flagpost import`, and which of them contradict one another.

In: what click read off the command line. Out: `Options`, or a usage error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

import click

from flagpost_schemas import MetadataGroup

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""By the end of the file's name, less .gz."""
TAB_NAMES = {"tab": "\t", "\\t": "\t"}

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command is given, by the names of its parameters."""

    path: str
    type_name: str
    id_column: str | None
    file_format: str | None
    group: str | None
    delimiter: str | None
    columns: tuple[str, ...]
    empty: str | None
    refused_path: str | None
    dry_run: bool
    as_json: bool
    yes: bool = False
    wait: bool = False
    wait_seconds: float = 300.0
    report_path: str | None = None

    @property
    def name(self) -> str:
        """The file, as messages call it."""
        return "standard input" if self.path == "-" else self.path

    @property
    def format(self) -> str | None:
        """`csv` or `jsonl`: as given, else by the file's name; None: it does not tell."""
        suffixes = [suffix for suffix in PurePath(self.path.lower()).suffixes if suffix != ".gz"]
        return self.file_format or FORMATS.get(suffixes[-1] if suffixes else "")

    def check(self) -> None:
        """Raise click.UsageError where the options do not tell what to do, or contradict one another."""
        if self.format is None:
            raise click.UsageError(
                f"what {self.name} holds is not told by its name; give --format csv or jsonl"
            )
        if self.format == "jsonl" and (self.delimiter or self.columns or self.empty):
            raise click.UsageError(
                "--delimiter, --column and --empty are for CSV; JSON says it all by itself"
            )
        if self.type_name == "track" and (self.group or self.empty):
            raise click.UsageError("--group and --empty are for metadata; an event's properties have neither")
        self._check_wait()
        if self.refused_path is not None and _is_same_file(self.refused_path, self.path):
            raise click.UsageError("--refused is the file that is imported; give another name")

    def _check_wait(self) -> None:
        if self.wait and self.dry_run:
            raise click.UsageError("--dry-run puts nothing in Kafka that could be waited for")
        if self.report_path is None:
            return
        if not self.wait:
            raise click.UsageError("--report tells how rows ended; give --wait, which waits for that")
        if report_format(self.report_path) is None:
            raise click.UsageError("--report: the name should end in .csv, .jsonl or .ndjson")
        if any(
            each is not None and _is_same_file(self.report_path, each)
            for each in (self.path, self.refused_path)
        ):
            raise click.UsageError("--report is another file of this import; give another name")


def report_format(path: str) -> str | None:
    """`csv` or `jsonl`, by the end of a report's name; None: it is neither."""
    suffix = PurePath(path.lower()).suffix
    return None if suffix == ".tsv" else FORMATS.get(suffix)


def _is_same_file(one: str, other: str) -> bool:
    return Path(one).exists() and Path(other).exists() and Path(one).samefile(other)


def _delimiter(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    delimiter = given and TAB_NAMES.get(given, given)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise click.BadParameter("give one character, or tab")
    return delimiter


_PARAMETERS = (
    click.argument("path", metavar="FILE|-", type=click.Path(exists=True, dir_okay=False, allow_dash=True)),
    click.option("--type", "type_name", type=click.Choice(["visitor", "account", "track"]), required=True),
    click.option(
        "--id", "id_column", metavar="COLUMN", help="The column of the ids.  [default: by its name]"
    ),
    click.option(
        "--format", "file_format", type=click.Choice(["csv", "jsonl"]), help="[default: by FILE's name]"
    ),
    click.option(
        "--group",
        type=click.Choice([group.value for group in MetadataGroup]),
        help="Pendo's group of fields.  [default: custom]",
    ),
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=_delimiter,
        help="Between a CSV's cells, or tab.  [default: found out]",
    ),
    click.option(
        "--column",
        "columns",
        metavar="NAME:TYPE",
        multiple=True,
        help="A CSV column's type, where the header does not give it. May be repeated.",
    ),
    click.option(
        "--empty",
        type=click.Choice(["leave", "clear"]),
        help="What a CSV's empty cell does to its field.  [default: leave]",
    ),
    click.option(
        "--refused", "refused_path", metavar="FILE", help="Write refused rows to this file, as JSON lines."
    ),
    click.option("--yes", is_flag=True, help="Do not ask, whatever fields Pendo lacks."),
    click.option("--wait", is_flag=True, help="Wait until every row is delivered, or has ended otherwise."),
    click.option(
        "--wait-seconds",
        type=click.FloatRange(min=1),
        default=300.0,
        show_default=True,
        help="Give up waiting when no row has ended for so long.",
    ),
    click.option(
        "--report", "report_path", metavar="FILE", help="Write how each row ended, as CSV or JSON lines."
    ),
    click.option("--dry-run", is_flag=True, help="Check every row, and write nothing to Kafka."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


def with_options(command: Command) -> Command:
    """Give a command the parameters that `Options` holds."""
    for parameter in reversed(_PARAMETERS):
        command = parameter(command)
    return command
