"""The chart's schema, in which form and where.

In: the definitions. Out: the text of values.schema.json with them in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from settings_schema.config import config
from settings_schema.variables import variable

PATH: Final = Path(__file__).parents[1] / "flagpost" / "values.schema.json"


def text(before: str) -> str:
    """What the file should hold; `before`: what it holds, of which all else is kept."""
    schema = json.loads(before)
    schema["definitions"] |= {"config": config(), "variable": variable()}
    return json.dumps(schema, indent=2) + "\n"


def write() -> None:
    """Write the file anew."""
    PATH.write_text(text(PATH.read_text()))
