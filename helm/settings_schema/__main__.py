"""Writes the schema's definitions: `python -m settings_schema` with `helm/` on the path; `make chart-schema`."""

from __future__ import annotations

from settings_schema.files import write

write()
