"""Reads decisions from Optimizely's Experimentation Events Export: Parquet, CSV or JSON lines.

In: files. Out: each visitor of an experiment's variation once. DuckDB (extra `analyst`) reads them. The schema is
Optimizely's data specification, https://docs.developers.optimizely.com/experimentation-data/docs
(experimentation-events-data-specification): `timestamp` is epoch ms, or a Parquet timestamp; `is_holdback` says that
the visitor was held back. Visitors are counted, not events, so `uuid` is not needed. Rows whose time cannot be read
are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flagpost_consumer.commands.reconcile.three_way import AtOptimizely, Export, Unreadable
from flagpost_schemas.exposures import Exposure, exposure_of

if TYPE_CHECKING:
    import duckdb

NEEDED = ("visitor_id", "experiment_id", "variation_id", "timestamp")
READERS = {
    ".parquet": "read_parquet(?)",
    ".csv": "read_csv(?, header = true, all_varchar = true)",
    ".jsonl": "read_json(?, format = 'newline_delimited')",
    ".ndjson": "read_json(?, format = 'newline_delimited')",
    ".json": "read_json(?, format = 'newline_delimited')",
}
"""How each kind of file is read; the last suffix before `.gz` tells the kind."""
BATCH_ROWS = 10_000


def read_exports(files: Iterable[Path]) -> Export:
    """All visitors in some files. Raises click.ClickException with the file and what is wrong with it."""
    try:
        import duckdb  # noqa: PLC0415 - only this needs the extra
    except ModuleNotFoundError:
        raise click.ClickException(
            "--optimizely needs DuckDB: pip install 'flagpost-consumer[analyst]'"
        ) from None
    found: dict[Exposure, AtOptimizely] = {}
    unreadable: list[Unreadable] = []
    with duckdb.connect(":memory:") as database:
        for file in files:
            try:
                unreadable.append(_read(database, file, found))
            except duckdb.Error as error:
                problem = str(error).splitlines()[0][:300]
                raise click.ClickException(
                    f"{file} cannot be read as Optimizely's export: {problem}"
                ) from None
    return Export(found, tuple(each for each in unreadable if each.rows))


def _read(database: duckdb.DuckDBPyConnection, file: Path, found: dict[Exposure, AtOptimizely]) -> Unreadable:
    """Add a file's visitors to `found`; returns which of its rows could not be read."""
    reader = _reader_of(file)
    described = database.execute(f"describe select * from {reader}", [str(file)]).fetchall()  # noqa: S608 - our own words
    types = {str(name): str(kind) for name, kind, *_ in described}
    missing = [name for name in NEEDED if name not in types]
    if missing:
        raise click.ClickException(
            f"{file} is not an export of decisions: it has no column {', '.join(missing)}; "
            f"its columns are {', '.join(types)[:500]}"
        )
    without_time, example = 0, None
    database.execute(_query(reader, types), [str(file)])
    while rows := database.fetchmany(BATCH_ROWS):
        for visitor_id, experiment_id, variation_id, first_ms, held_back, client, unreadable, time in rows:
            without_time, example = without_time + unreadable, example or time
            if first_ms is not None:
                exposure = exposure_of(experiment_id, variation_id, visitor_id)
                told = AtOptimizely(first_ms, held_back, client)
                found[exposure] = told.joined(found.get(exposure))
    return Unreadable(str(file), without_time, example)


def _reader_of(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    reader = READERS.get(suffixes[-1]) if suffixes else None
    if reader is None:
        raise click.ClickException(
            f"{file}: the format is not known from the name; it must end in {', '.join(READERS)}"
        )
    return reader


def _query(reader: str, types: Mapping[str, str]) -> str:
    """Each visitor of a variation once: since when, whether always held back, by which SDK; how many of its rows have
    a time that cannot be read, and one of these.
    """
    at_ms = _epoch_ms(types["timestamp"])
    as_text = "timestamp ->> '$'" if types["timestamp"] == "JSON" else "cast(timestamp as varchar)"
    held_back = "coalesce(try_cast(is_holdback as boolean), false)" if "is_holdback" in types else "false"
    client = " || ' ' || ".join(
        f"coalesce(cast({name} as varchar), '')"
        for name in ("client_engine", "client_version")
        if name in types
    )
    return f"""
        select cast(visitor_id as varchar), cast(experiment_id as varchar), cast(variation_id as varchar),
               min({at_ms}), bool_and({held_back}), trim(min({client or "''"})),
               count(*) filter ({at_ms} is null), min({as_text}) filter ({at_ms} is null)
        from {reader}
        where visitor_id is not null
        group by all
    """  # noqa: S608 - made of our own words


def _epoch_ms(kind: str) -> str:
    if kind.startswith("TIMESTAMP"):
        return "epoch_ms(timestamp)"
    if kind in ("VARCHAR", "JSON"):  # JSON: numbers and texts
        text = "(timestamp ->> '$')" if kind == "JSON" else "timestamp"
        as_time = f"epoch_ms(try_cast({text} as timestamptz))"
        return f"coalesce(try_cast({text} as bigint), {as_time})"
    return "cast(timestamp as bigint)"
