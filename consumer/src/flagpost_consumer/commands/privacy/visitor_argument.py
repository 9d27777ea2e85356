"""The argument VISITOR of commands.

In: what was typed. Out: an id that is valid for Kafka and Pendo.
"""

from __future__ import annotations

import click


class VisitorParameter(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """A visitor's id, exactly as Pendo knows it."""

    name = "visitor"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """A text that cannot be a record's key is a usage error."""
        visitor_id = str(value)
        if not visitor_id:
            self.fail("an empty id is nobody's: give the visitor's id", param, ctx)
        try:
            visitor_id.encode()
        except UnicodeEncodeError:
            self.fail("the id should be UTF-8: look at the terminal's encoding", param, ctx)
        return visitor_id


VISITOR = VisitorParameter()
