"""The table of rights in docs/security.md: the tests give users exactly these rights.

In: the page. Out: for each program or command, the rights on each resource, with the names of a test's own topics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from flagpost_kafka.rights import Operation, Resource, Right

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
COLUMN = re.compile(r"(Topic|Group|TransactionalId) `([^`]+)`")


def rights_of(program: str, settings: Mapping[str, object]) -> list[Right]:
    """The rights of one row; `settings` by dotted key name the resources."""
    return [
        Right(Operation(operation), Resource(kind), _name(name, settings))
        for kind, name, operations in _rows()[program]
        for operation in operations
    ]


def programs() -> list[str]:
    """Every row's program or command."""
    return list(_rows())


def _rows() -> dict[str, list[tuple[str, str, list[str]]]]:
    first_table = PAGE.read_text().partition("\n|")[2].partition("\n\n")[0]
    header, _, *rows = [_cells(line) for line in first_table.splitlines()]
    columns = [COLUMN.fullmatch(text) for text in header[1:]]
    found = {}
    for program, *cells in rows:
        assert len(cells) == len(columns), program
        found[program.strip("`")] = [
            (column[1], column[2], cell.split(", "))
            for column, cell in zip(columns, cells, strict=True)
            if column is not None and cell
        ]
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _name(name: str, settings: Mapping[str, object]) -> str:
    """The resource that a cell names: a setting's value, or a text that contains one."""
    before, _, setting = name.rpartition("<")
    return before + str(settings[setting.rstrip(">")])
