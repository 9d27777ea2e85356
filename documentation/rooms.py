"""Draws the rooms of the code and their imports: docs/pictures/rooms-*.svg, one for each rule of import-linter.

In: the layers of pyproject.toml (tool.importlinter) and grimp's graph of the imports. Out: a picture with a row for
each layer, a box for each room and arrows from importers down to what they import, and the same as a table in
docs/architecture.md. An arrow that others imply (a room reaches it on the way through another) is in the table alone.
`make architecture` writes them; a test holds that they are up to date.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import grimp

from documentation import made_parts

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
PAGE = ROOT / "docs" / "architecture.md"
_NAMES: Final = ("programs", "consumer", "core", "adapters")
"""Of the pictures, in the order of the rules."""

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 34, 34, 44, 100
_BULGE: Final = 34
"""How far an arrow that passes rows by leaves the straight line, for each row."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What one picture shows."""

    name: str
    title: str
    layers: tuple[tuple[str, ...], ...]
    """The rooms' full names, from the top row down."""
    imports: tuple[tuple[str, str], ...]
    """Who imports whom, in the order of the rows."""

    @property
    def arrows(self) -> list[tuple[str, str]]:
        """Those imports that no way through other rooms implies."""
        return [each for each in self.imports if not self._reaches(*each, without=each)]

    def row_of(self, room: str) -> int:
        """Which row a room stands in, from 0 at the top."""
        return next(number for number, layer in enumerate(self.layers) if room in layer)

    def _reaches(self, importer: str, imported: str, *, without: tuple[str, str]) -> bool:
        below = [end for start, end in self.imports if start == importer and (start, end) != without]
        return imported in below or any(self._reaches(each, imported, without=without) for each in below)


def every() -> Iterator[Rooms]:
    """What there is to draw."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    graph = grimp.build_graph(*rules["root_packages"], cache_dir=None)
    for name, rule in zip(_NAMES, rules["contracts"], strict=True):
        layers = tuple(_layer(each, rule) for each in rule["layers"])
        yield Rooms(
            name, rule["name"], layers, tuple(_arrows(graph, [room for layer in layers for room in layer]))
        )


def path_of(rooms: Rooms) -> Path:
    """The file of a picture."""
    return FOLDER / f"rooms-{rooms.name}.svg"


def drawn(rooms: Rooms) -> str:
    """A picture as SVG."""
    width = max(_row_width(layer) for layer in rooms.layers) + 2 * _MARGIN
    height = len(rooms.layers) * (_BOX_HEIGHT + _GAP_Y) + 30
    places = {room: _place(rooms, room, width) for layer in rooms.layers for room in layer}
    arrows = [_arrow(rooms, places, *each, side=1 - 2 * (turn % 2)) for turn, each in enumerate(rooms.arrows)]
    boxes = [_box(room, *places[room]) for room in places]
    return "\n".join(
        [_HEAD.format(width=width, height=height, title=escape(rooms.title)), *arrows, *boxes, "</svg>\n"]
    )


def table(every_rooms: Sequence[Rooms]) -> str:
    """Which room imports which others, all of them."""
    rows = ["| room | imports |", "|---|---|"]
    for rooms in every_rooms:
        for room in (room for layer in rooms.layers for room in layer):
            imported = ", ".join(f"`{_short(end)}`" for start, end in rooms.imports if start == room)
            rows.append(f"| `{room}` | {imported or 'none of these'} |")
    return "\n".join(rows)


def _layer(layer: str, rule: dict[str, Any]) -> tuple[str, ...]:
    container = "".join(f"{each}." for each in rule.get("containers", ()))
    return tuple(container + room for room in re.split(r"\s*[|:]\s*", layer))


def _arrows(graph: grimp.ImportGraph, rooms: Sequence[str]) -> Iterator[tuple[str, str]]:
    for importer in rooms:
        modules = {importer, *graph.find_descendants(importer)}
        imported = {each for module in modules for each in graph.find_modules_directly_imported_by(module)}
        for room in rooms:
            if room != importer and any(f"{each}.".startswith(f"{room}.") for each in imported):
                yield importer, room


def _row_width(layer: Sequence[str]) -> int:
    return len(layer) * (_BOX_WIDTH + _GAP_X) - _GAP_X


def _place(rooms: Rooms, room: str, width: int) -> tuple[int, int]:
    """The middle of a room's box."""
    row = rooms.row_of(room)
    layer = rooms.layers[row]
    left = (width - _row_width(layer)) // 2
    x = left + layer.index(room) * (_BOX_WIDTH + _GAP_X) + _BOX_WIDTH // 2
    return x, 40 + row * (_BOX_HEIGHT + _GAP_Y) + _BOX_HEIGHT // 2


def _arrow(
    rooms: Rooms, places: dict[str, tuple[int, int]], importer: str, imported: str, *, side: int
) -> str:
    """From the foot of the importer's box to the top of the other; one that passes rows goes round them."""
    (x1, y1), (x2, y2) = places[importer], places[imported]
    passed = rooms.row_of(imported) - rooms.row_of(importer) - 1
    start, end = (x1, y1 + _BOX_HEIGHT // 2), (x2, y2 - _BOX_HEIGHT // 2 - 5)
    bend = side * passed * (_BULGE + _BOX_WIDTH // 4)
    middle = (x1 + bend, y1 + (y2 - y1) // 3), (x2 + bend, y2 - (y2 - y1) // 3)
    points = " ".join(f"{x},{y}" for x, y in (*middle, end))
    title = f"<title>{_short(importer)} imports {_short(imported)}</title>"
    return f'<path d="M{start[0]},{start[1]} C{points}">{title}</path>'


def _box(room: str, x: int, y: int) -> str:
    left, top = x - _BOX_WIDTH // 2, y - _BOX_HEIGHT // 2
    box = f'<rect x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5"/>'
    return f'{box}<text x="{x}" y="{y + 5}">{_short(room)}</text>'


def _short(room: str) -> str:
    return room.rpartition(".")[2]


_HEAD: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">
<title>{title}</title>
<style>
svg {{ background: #fff; font: 14px system-ui, sans-serif }}
rect {{ fill: #eef1fb; stroke: #3949ab }}
text {{ text-anchor: middle; fill: #1a1a1a }}
path {{ fill: none; stroke: #5c6bc0; stroke-width: 1.3; marker-end: url(#head) }}
</style>
<marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<polygon points="0,0 8,4 0,8" fill="#5c6bc0"/></marker>
<text x="12" y="22" style="text-anchor: start">{title}</text>"""


def write() -> None:
    """Draw every picture, and write the table, anew."""
    found = list(every())
    for rooms in found:
        path_of(rooms).write_text(drawn(rooms))
    PAGE.write_text(made_parts.with_part(PAGE.read_text(), "architecture", "imports", table(found)))


if __name__ == "__main__":
    write()
