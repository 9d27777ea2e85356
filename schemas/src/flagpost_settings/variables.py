"""Variables that look like settings and are not: names that differ from a setting's only by underscores.

In: the environment, the names that are read. Out: each such variable with the name that was meant. Imports nothing of
ours, so that the Publisher can use it without the extra `settings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

CONFIG_VARIABLE: Final = "FLAGPOST_CONFIG"
"""The path of the settings file; read by the commands themselves."""

SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{1,5}")
"""The value that Kubernetes gives a pod as FLAGPOST_GATEWAY_PORT beside a Service named flagpost-gateway, and the
like (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
"""


def squashed(name: str) -> str:
    """`name` without its underscores."""
    return name.replace("_", "")


def misspelt(environ: Mapping[str, str], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The variables in `environ` that are not `known`, each with the known one that was probably meant."""
    meant = {squashed(name): name for name in known}
    for name in sorted(environ):
        right = meant.get(squashed(name), name)
        if right != name and not SERVICE_LINK.fullmatch(environ[name]):
            yield name, right


def advice(right: str) -> str:
    """What to do about a misspelt variable; follows its name."""
    return f"is not read, because its underscores are not those of a setting; write {right}"
