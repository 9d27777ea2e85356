"""The JSON files, in which form and where.

In: the dashboards. Out: the text of each file by its name, and the files in the chart.
"""

from __future__ import annotations

import json
from pathlib import Path

from dashboards import delivery, experiments, kafka, overview, publishers, resources, visitors

FOLDER = Path(__file__).parents[1] / "flagpost" / "dashboards"
DASHBOARDS = tuple(
    module.DASHBOARD for module in (overview, delivery, kafka, visitors, experiments, publishers, resources)
)


def texts() -> dict[str, str]:
    """What each file holds."""
    return {
        f"{dashboard.name}.json": json.dumps(dashboard.as_json(), indent=1, ensure_ascii=False) + "\n"
        for dashboard in DASHBOARDS
    }


def write_all() -> None:
    """Write the files."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
