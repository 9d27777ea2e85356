"""Parses bodies as JSON.

In: bytes. Out: the parsed JSON, or a DocumentError that says where it is wrong. `strict` is for senders who look at
our answers; `tolerant` is for libraries that would drop a refused batch: one bad text or number should not cost the
other messages.
"""

from __future__ import annotations

import codecs
import json
import math
from typing import Any, NoReturn

from flagpost_publisher.gateway.fronts import DocumentError
from flagpost_schemas.text_encoding import foreign_encoding


def strict(body: bytes) -> object:
    """JSON according to RFC 8259, with finite numbers and no name twice in an object."""
    return _read(body, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object)


def tolerant(body: bytes) -> object:
    """JSON as Python parses it: with NaN and infinities, the last of duplicate names; a byte order mark is skipped.

    Invalid UTF-8 becomes U+FFFD, texts may contain control characters, a whole number too long for Python
    becomes a text.
    """
    plain = body.removeprefix(codecs.BOM_UTF8)
    try:
        return _read(plain, "replace", strict=False)
    except _NumberTooLong:
        return _read(plain, "replace", strict=False, parse_int=_whole_number_or_digits)


class _NumberTooLong(DocumentError):  # noqa: N818 - says what is wrong
    """A whole number with more digits than Python reads."""


def _read(body: bytes, undecodable: str = "strict", **hooks: Any) -> object:  # noqa: ANN401 - json's own
    encoding = foreign_encoding(body)
    if encoding is not None:
        raise DocumentError(None, "body", f"is {encoding}, not UTF-8; send JSON as UTF-8")
    try:
        return json.loads(body.decode(errors=undecodable), **hooks)
    except DocumentError:
        raise
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 at byte {error.start}; send JSON as UTF-8"
    except json.JSONDecodeError as error:
        problem = (
            f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; send a whole document"
        )
    except RecursionError:
        problem = "is nested too deep; send flatter JSON"
    except ValueError:
        raise _NumberTooLong(
            None, "body", "has a whole number of thousands of digits; send it as a text"
        ) from None
    raise DocumentError(None, "body", problem)


def _whole_number_or_digits(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def _no_constant(name: str) -> NoReturn:
    raise DocumentError(None, "body", f"holds {name}, which is not JSON; leave that value out")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise DocumentError(None, "body", "has a number too large for a double; send it as a text")
    return number


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise DocumentError(None, "body", "has an object in which a name is given twice; send each name once")
    return found
