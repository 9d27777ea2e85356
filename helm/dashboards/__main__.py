"""Writes the dashboards: `python -m dashboards` with `helm/` on the path; `make dashboards`."""

from __future__ import annotations

from dashboards.files import write_all

write_all()
