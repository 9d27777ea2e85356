"""What the schema registry may answer, or fail to answer, instead of a schema.

Apart from the client, so that code that only handles these need not import an HTTP client, which takes a while.
"""

from __future__ import annotations


class SchemaRefused(Exception):  # noqa: N818 (a fact, told by an exception)
    """The registry, or a proxy before it, answered about this id, and returned no schema."""


class SchemaDoesNotExist(SchemaRefused):
    """The registry answered in its own format: it has no schema with this id."""


class SchemaUnusable(Exception):  # noqa: N818
    """The registry has the schema, but it is not Avro, or refers to other schemas."""


class RegistryNotAnswering(Exception):  # noqa: N818
    """No answer, or none that says anything about the id; ask again later."""


class RegistryTurnsAway(RegistryNotAnswering):
    """The registry rejected the request for a reason of the client or of the moment (`TURNED_AWAY`)."""
