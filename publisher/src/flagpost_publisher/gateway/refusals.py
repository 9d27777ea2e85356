"""A refused request, as an exception that holds the whole answer.

In: a status and what is wrong. Out: the JSON document for the client, the same for every route. Texts contain no
value of the request: ids and properties may be personal, keys are secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Refusal(Exception):  # noqa: N818 - says what became of the request
    """The answer to a refused request."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        index: int | None = None,
        field: str | None = None,
        fix: str | None = None,
        headers: Mapping[str, str] = NOTHING,
    ) -> None:
        """Args:
        status: the HTTP status.
        error: what is wrong.
        index: which event of the request, from 0; None if it is not about one.
        field: which field of it; None if it is not about one.
        fix: what to do, if the error does not say it.
        headers: further headers of the answer.
        """
        super().__init__(error)
        self.status = status
        self.headers = headers
        self.document: dict[str, object] = {"error": error, "index": index, "field": field}
        if fix is not None:
            self.document["fix"] = fix


def try_again(error: str, seconds: int, fix: str) -> Refusal:
    """503: nothing is wrong with the request; it may be sent again after this many `seconds`."""
    return Refusal(503, error, fix=fix, headers={"retry-after": str(seconds)})
