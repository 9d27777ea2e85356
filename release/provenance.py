"""Where the artefacts come from: a statement in in-toto's form with SLSA's predicate.

It is not signed: who publishes signs it, with a key that only the publisher has (docs/releasing.md).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from release.identity import Identity
from release.source import Source

PROVENANCE: Final = "provenance.intoto.json"


def write_provenance(
    folder: Path,
    source: Source,
    identity: Identity,
    digests: Mapping[str, str],
    left_out: Mapping[str, str],
    started_at: datetime,
) -> None:
    """State what was made, of what and how. `left_out` says of each artefact that is not there why."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{identity.home}/blob/main/docs/releasing.md",
                "externalParameters": {"version": identity.version, "source": _commit(source, identity)},
                "internalParameters": {"SOURCE_DATE_EPOCH": str(source.epoch), "leftOut": dict(left_out)},
                "resolvedDependencies": [_commit(source, identity), *_build_tools(source)],
            },
            "runDetails": {
                "builder": {"id": f"{identity.home}/blob/main/Makefile"},
                "metadata": {"startedOn": _time(started_at), "finishedOn": _time(datetime.now(UTC))},
            },
        },
    }
    (folder / PROVENANCE).write_text(json.dumps(statement, indent=2) + "\n")


def _commit(source: Source, identity: Identity) -> dict[str, object]:
    return {"uri": f"git+{identity.home}@{source.commit}", "digest": {"gitCommit": source.commit}}


def _build_tools(source: Source) -> list[dict[str, object]]:
    """The packages of the group `build`, with the hash of each that the lock allows."""
    locked = {each["name"]: each for each in tomllib.loads((source.place / "uv.lock").read_text())["package"]}
    wanted, found = ["hatchling"], dict[str, dict[str, object]]()
    while wanted:
        package = locked[wanted.pop()]
        name, version = package["name"], package["version"]
        digest = package["wheels"][0]["hash"].removeprefix("sha256:")
        found[name] = {"uri": f"pkg:pypi/{name}@{version}", "digest": {"sha256": digest}}
        wanted += [each["name"] for each in package.get("dependencies", ()) if each["name"] not in found]
    return [found[name] for name in sorted(found)]


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
