"""Settlements as rows, for people who analyse: `flagpost export` and `flagpost sql`.

`rows` reads the ledger; `files` writes each form of file, whole or not at all; `database` is DuckDB, which only
Parquet and SQL need (extra `analyst`); `results` prints what a query gives. `export` and `sql` are the commands.
"""
