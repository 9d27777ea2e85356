"""The options of `flagpost import`, and their contradictions.

In: the parsed command line. Out: `Options`, or a usage error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

import click

from flagpost_consumer.commands.imports.columns import ColumnType
from flagpost_consumer.core.planning.legible import quoted
from flagpost_schemas import MetadataGroup

FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""By the ending of the file's name, without .gz."""
TAB_NAMES = {"tab": "\t", "\\t": "\t"}

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command, by the names of its parameters."""

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
        """The file's name for messages."""
        return "standard input" if self.path == "-" else self.path

    @property
    def format(self) -> str | None:
        """`csv` or `jsonl`: as given, else by the file's name; None: unknown."""
        suffixes = [suffix for suffix in PurePath(self.path.lower()).suffixes if suffix != ".gz"]
        return self.file_format or FORMATS.get(suffixes[-1] if suffixes else "")

    def check(self) -> None:
        """Raise click.UsageError if the options are insufficient or contradict one another."""
        if self.format is None:
            raise click.UsageError(
                f"the format of {self.name} is not known from its name; give --format csv or jsonl"
            )
        if self.format == "jsonl" and (self.delimiter or self.columns or self.empty):
            raise click.UsageError("--delimiter, --column and --empty are only for CSV")
        for column in self.columns:
            self._check_column(column)
        if self.type_name == "track" and (self.group or self.empty):
            raise click.UsageError("--group and --empty are only for metadata, not for track events")
        self._check_wait()
        if self.refused_path is not None and _is_same_file(self.refused_path, self.path):
            raise click.UsageError("--refused names the file that is imported; give another name")

    @staticmethod
    def _check_column(given: str) -> None:
        name, _, type_name = given.strip().rpartition(":")
        if not name or type_name not in set(ColumnType):
            types = ", ".join(ColumnType)
            raise click.UsageError(
                f"--column {quoted(given)}: give NAME:TYPE, such as seats:integer; types are {types}"
            )

    def _check_wait(self) -> None:
        if self.wait and self.dry_run:
            raise click.UsageError(
                "--dry-run writes nothing, so --wait has nothing to wait for; give only one of them"
            )
        if self.report_path is None:
            return
        if not self.wait:
            raise click.UsageError("--report shows how rows ended, so it needs --wait")
        if report_format(self.report_path) is None:
            raise click.UsageError("--report: the file's name must end in .csv, .jsonl or .ndjson")
        if any(
            each is not None and _is_same_file(self.report_path, each)
            for each in (self.path, self.refused_path)
        ):
            raise click.UsageError("--report names another file of this import; give another name")


def report_format(path: str) -> str | None:
    """`csv` or `jsonl`, by the ending of a report's name; None: neither."""
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
    click.option(
        "--type",
        "type_name",
        type=click.Choice(["visitor", "account", "track"]),
        required=True,
        help="Whether rows are metadata of visitors, metadata of accounts, or track events.",
    ),
    click.option(
        "--id",
        "id_column",
        metavar="COLUMN",
        help="The column that holds the ids.  [default: recognised by its name]",
    ),
    click.option(
        "--format",
        "file_format",
        type=click.Choice(["csv", "jsonl"]),
        help="The file's format.  [default: by the file's name]",
    ),
    click.option(
        "--group",
        type=click.Choice([group.value for group in MetadataGroup]),
        help="The group of metadata fields in Pendo.  [default: custom]",
    ),
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        callback=_delimiter,
        help="The character between the cells of a CSV file, or the word tab.  [default: detected]",
    ),
    click.option(
        "--column",
        "columns",
        metavar="NAME:TYPE",
        multiple=True,
        help="The type of a CSV column whose header does not name one. May be repeated.",
    ),
    click.option(
        "--empty",
        type=click.Choice(["leave", "clear"]),
        help="Whether an empty CSV cell leaves its field unchanged or clears it.  [default: leave]",
    ),
    click.option(
        "--refused", "refused_path", metavar="FILE", help="Write refused rows to this file, as JSON lines."
    ),
    click.option("--yes", is_flag=True, help="Import without asking, even if Pendo lacks fields."),
    click.option("--wait", is_flag=True, help="Wait until every row is delivered or has ended otherwise."),
    click.option(
        "--wait-seconds",
        type=click.FloatRange(min=1),
        default=300.0,
        show_default=True,
        help="Stop waiting when no row has ended for this long.",
    ),
    click.option(
        "--report",
        "report_path",
        metavar="FILE",
        help="With --wait: write how each row ended to this file, as CSV or JSON lines.",
    ),
    click.option("--dry-run", is_flag=True, help="Check every row, and write nothing to Kafka."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


def with_options(command: Command) -> Command:
    """Add the parameters in `Options` to a command."""
    for parameter in reversed(_PARAMETERS):
        command = parameter(command)
    return command
