"""The commit that is released: taken out of Git, so that what lies about in the checkout has no part in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from release.commands import run


class Source(NamedTuple):
    """A commit, taken out."""

    place: Path
    commit: str
    epoch: int
    """When it was committed, in epoch seconds: SOURCE_DATE_EPOCH of everything built of it."""
    tags: frozenset[str]
    changes: tuple[str, ...]
    """Files that the checkout has otherwise than the commit; they are not released."""

    @property
    def variables(self) -> dict[str, str]:
        """What programs are told that build of it."""
        return {"SOURCE_DATE_EPOCH": str(self.epoch)}

    @property
    def committed_at(self) -> datetime:
        """The same in UTC."""
        return datetime.fromtimestamp(self.epoch, UTC)


def take_out(place: Path) -> Source:
    """Lay the commit of the checkout out in an empty folder."""
    archive = place.with_suffix(".tar")
    run(["git", "archive", "--format=tar", f"--output={archive}", "HEAD"])
    place.mkdir()
    run(["tar", "--extract", "--file", archive, "--directory", place])
    archive.unlink()
    return Source(
        place,
        commit=run(["git", "rev-parse", "HEAD"]).strip(),
        epoch=int(run(["git", "show", "--no-patch", "--format=%ct", "HEAD"])),
        tags=frozenset(run(["git", "tag", "--points-at", "HEAD"]).split()),
        changes=tuple(line[3:] for line in run(["git", "status", "--porcelain"]).splitlines()),
    )
