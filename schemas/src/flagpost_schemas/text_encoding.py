"""Whether bytes that should be UTF-8 are text of another encoding, according to their beginning.

In: the beginning of a file or body. Out: the encoding's name, or None. Spreadsheet programs and PowerShell write
UTF-16, with a byte order mark or without.
"""

from __future__ import annotations

import codecs
from typing import Final

BEGINNING_BYTES: Final = 4096
"""This much is enough to tell."""

_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_HIGHEST_PLANE: Final = 0x10
"""Unicode has 17 planes: of four bytes of UTF-32 the highest is 0, and the next at most this."""


def foreign_encoding(content: bytes) -> str | None:
    """UTF-16 or UTF-32, if `content` is text in it; None otherwise, also for UTF-8 with a few NULs."""
    beginning = content[:BEGINNING_BYTES]
    for mark, name in _MARKS.items():
        if beginning.startswith(mark):
            return name
    nuls = beginning.count(0)
    if nuls == 0:
        return None
    if _is_utf_32(beginning, 3, 2) or _is_utf_32(beginning, 0, 1):
        return "UTF-32"
    # In western text half of UTF-16's bytes are NUL, in other text those of its line ends.
    is_utf_16 = 4 * nuls >= len(beginning) or (_has_wide_line_end(beginning) and not _is_utf_8(beginning))
    return "UTF-16" if is_utf_16 else None


def _is_utf_32(beginning: bytes, zero: int, plane: int) -> bool:
    """`zero` and `plane`: the positions, in four bytes, of the highest two."""
    zeros, planes = beginning[zero::4], beginning[plane::4]
    return len(beginning) >= 4 and not any(zeros) and max(planes) <= _HIGHEST_PLANE


def _has_wide_line_end(beginning: bytes) -> bool:
    pairs = zip(beginning[::2], beginning[1::2], strict=False)
    return any(pair in ((0x0A, 0), (0, 0x0A)) for pair in pairs)


def _is_utf_8(beginning: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True
