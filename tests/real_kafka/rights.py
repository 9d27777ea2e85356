"""Gives users rights on a real broker, and removes them, while clients are at work.

In: an admin client that may do everything, a user, a resource and operations by name. Out: nothing; a call returns
when the broker applies the change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter

from deadlines import stretched

CALL_SECONDS = 20.0


def give(admin: AdminClient, user: str, kind: str, name: str, operations: Sequence[str]) -> None:
    """Allow operations on a resource."""
    for operation in operations:
        right = AclBinding(kind, name, "literal", f"User:{user}", "*", operation, "allow")
        for future in admin.create_acls([right]).values():
            future.result(stretched(CALL_SECONDS))
        _await(admin, _like(user, kind, name, operation), there=True)


def take(admin: AdminClient, user: str, kind: str, name: str, operations: Sequence[str]) -> None:
    """Remove the right to operations on a resource."""
    for operation in operations:
        right = _like(user, kind, name, operation)
        for future in admin.delete_acls([right]).values():
            future.result(stretched(CALL_SECONDS))
        _await(admin, right, there=False)


def _like(user: str, kind: str, name: str, operation: str) -> AclBindingFilter:
    return AclBindingFilter(kind, name, "literal", f"User:{user}", "*", operation, "allow")


def _await(admin: AdminClient, right: AclBindingFilter, *, there: bool) -> None:
    """Wait until the broker has learned of a change from the controller, which takes a moment."""
    deadline = time.monotonic() + stretched(CALL_SECONDS)
    while bool(admin.describe_acls(right).result(stretched(CALL_SECONDS))) is not there:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the broker does not act upon {right} within {CALL_SECONDS:g} s")
        admin.poll(0.02)
