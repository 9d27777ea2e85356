"""DuckDB, embedded: settlements as Parquet, and as tables for SQL.

In: files of settlements. Out: a Parquet file; a `Database` whose SQL can access no file and no network. Memory is
limited: what does not fit is written to a directory of its own, which is removed with the database. Needs the extra
`analyst`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import orjson

from flagpost_consumer.commands.analyst.rows import COLUMNS, TIMES
from flagpost_consumer.core.outcomes import STANDINGS, Outcome

MEMORY = "512MB"
MOST_THREADS = 4
"""Each thread needs some of the memory."""
LONGEST_LINE_BYTES = 1_000_000
_NUMBERS = frozenset({"partition", "offset", "duplicate_of", "attempts", "unseen", "status", *TIMES})


def parquet_of(lines: Path, target: Path) -> None:
    """Write the settlements of a file of JSON lines as Parquet.

    Raises:
        OSError: the file cannot be written.
    """
    with (
        tempfile.TemporaryDirectory(prefix="flagpost-") as directory,
        _connect(Path(directory)) as connection,
    ):
        try:
            _of_json_lines(connection, lines).write_parquet(str(target), compression="zstd")
        except duckdb.IOException as error:
            raise OSError(str(error)) from None


class NotAnExport(Exception):  # noqa: N818 - says what came
    """A file lacks columns of `flagpost export`."""


class Database:
    """Settlements, and SQL queries on them; a context manager."""

    def __init__(self, memory: str = MEMORY) -> None:
        """`memory`: the limit for DuckDB, such as `512MB`."""
        self._directory = tempfile.TemporaryDirectory(prefix="flagpost-")
        self._place = Path(self._directory.name)
        self.connection = _connect(self._place, memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        self._directory.cleanup()

    @property
    def scratch(self) -> Path:
        """A file for data to load; it is removed with the database."""
        return self._place / "settlements.jsonl"

    def load(self, file: Path) -> None:
        """Load a file that `flagpost export` wrote, Parquet or JSON lines.

        Raises:
            duckdb.Error: it cannot be read.
            NotAnExport: it is of something else.
        """
        connection = self.connection
        if file.suffix == ".parquet":
            lines = connection.read_parquet(str(file))
            _require_columns(lines.columns)
            settlements = lines.project(", ".join(map(_name, COLUMNS)))
        else:
            _require_columns(_members_of_first(file))
            settlements = _of_json_lines(connection, file)
        settlements.create("settlements")
        for view in (_ORDERS, _DELIVERIES, _VISITORS, _FLAGS):
            connection.execute(view)
        best_first = sorted(Outcome, key=lambda outcome: -outcome.rank)
        connection.executemany("INSERT INTO precedence VALUES (?, ?)", list(enumerate(best_first)))
        connection.executemany("INSERT INTO nearness VALUES (?, ?)", list(enumerate(STANDINGS)))

    def lock(self) -> None:
        """From now on SQL can access no file and no network, and cannot change that."""
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")


def _connect(directory: Path, memory: str = MEMORY) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        str(directory / "settlements.duckdb"),
        config={
            "memory_limit": memory,
            "threads": min(MOST_THREADS, os.cpu_count() or 1),
            "temp_directory": str(directory / "spilled"),
            "preserve_insertion_order": False,
            # Nothing is fetched from the internet, and no variable of this program becomes a table.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _of_json_lines(connection: duckdb.DuckDBPyConnection, file: Path) -> duckdb.DuckDBPyRelation:
    types = {name: "BIGINT" if name in _NUMBERS else "VARCHAR" for name in COLUMNS}
    lines = connection.read_json(str(file), format="newline_delimited", columns=types)
    return lines.project(", ".join(map(_column, COLUMNS)))


def _members_of_first(file: Path) -> Iterable[str]:
    """The members of a file's first line; if there is none, or it is no JSON, reading the file goes on or says so."""
    with file.open("rb") as lines:
        first = lines.readline(LONGEST_LINE_BYTES)
    try:
        found = orjson.loads(first)
    except orjson.JSONDecodeError:
        return COLUMNS
    return found if isinstance(found, dict) else ()


def _require_columns(names: Iterable[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise NotAnExport(f"it has no column {', '.join(missing)}")


def _column(name: str) -> str:
    if name not in TIMES:
        return _name(name)
    # A record may contain any number; one that is not a time becomes null.
    return f"TRY(make_timestamptz({_name(name)} * 1000)) AS {_name(name)}"


def _name(name: str) -> str:
    return f'"{name}"'


_ORDERS = """
CREATE TABLE precedence (place INTEGER, outcome VARCHAR);
CREATE TABLE nearness (place INTEGER, reason VARCHAR);
"""
_DELIVERIES = """
CREATE VIEW deliveries AS
SELECT settlements.* FROM settlements LEFT JOIN precedence USING (outcome)
QUALIFY row_number() OVER (PARTITION BY "partition", "offset", kind ORDER BY place NULLS LAST, settled_at) = 1
"""
_VISITORS = """
CREATE VIEW visitors AS
SELECT flag_key, variation_key, visitor_id,
    count(*) AS decisions,
    bool_or(outcome = 'delivered') AS is_delivered,
    CASE WHEN NOT is_delivered THEN arg_max(reason, coalesce(place, -1)) END AS lost_reason,
    min(occurred_at) AS first_occurred_at,
    max(occurred_at) AS last_occurred_at
FROM deliveries LEFT JOIN nearness USING (reason)
WHERE kind = 'track' AND flag_key IS NOT NULL
GROUP BY flag_key, variation_key, visitor_id
"""
_FLAGS = """
CREATE VIEW flags AS
WITH people AS (
    SELECT flag_key, variation_key,
        count(*) AS visitors,
        count(*) FILTER (is_delivered) AS visitors_delivered,
        count(*) FILTER (NOT is_delivered) AS visitors_lost
    FROM visitors
    GROUP BY flag_key, variation_key
), events AS (
    SELECT flag_key, variation_key,
        count(*) AS decisions,
        count(*) FILTER (outcome = 'delivered') AS delivered,
        count(*) FILTER (outcome = 'duplicate') AS duplicate,
        count(*) FILTER (outcome = 'dropped') AS dropped,
        count(*) FILTER (outcome = 'dead_lettered') AS dead_lettered
    FROM deliveries
    WHERE kind = 'track' AND flag_key IS NOT NULL
    GROUP BY flag_key, variation_key
)
SELECT people.*, events.* EXCLUDE (flag_key, variation_key)
FROM people JOIN events
    ON people.flag_key = events.flag_key AND people.variation_key IS NOT DISTINCT FROM events.variation_key
ORDER BY people.flag_key, people.variation_key
"""
