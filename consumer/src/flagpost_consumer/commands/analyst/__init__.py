"""Settlements as rows, for analysts: `flagpost export` and `flagpost sql`.

`rows` reads the ledger; `files` writes each form of file, completely or not at all; `database` is DuckDB, which only
Parquet and SQL need (extra `analyst`); `results` prints the result of a query. `export` and `sql` are the commands.
"""
