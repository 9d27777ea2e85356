"""What a release must have before it may be published: said of all that lacks, not of the first thing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from release.identity import Identity
from release.source import Source


def objections(source: Source, identity: Identity, left_out: Mapping[str, str]) -> list[str]:
    """Why this may not be published; empty: nothing is against it."""
    version = identity.version
    found = [f"the release lacks its {name}: {why}" for name, why in left_out.items()]
    if not identity.has_home:
        found.append(
            f"the project's home is a placeholder, {identity.home}: set it in pyproject.toml, make identity"
        )
    if f"v{version}" not in source.tags:
        found.append(f"the commit has no tag v{version}")
    changes = (source.place / "CHANGELOG.md").read_text()
    if not re.search(rf"^## {re.escape(version)}, \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading `## {version}, YYYY-MM-DD`")
    if source.changes:
        found.append(f"the checkout has changes that are not committed: {', '.join(source.changes)}")
    return found
