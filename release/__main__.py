"""Build the artefacts of the commit that is checked out: `make release`, which also brings the tools."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from release.chart import build_chart
from release.checksums import digests, write_checksums
from release.commands import ROOT, CommandError
from release.distributions import build_distributions
from release.identity import Identity, differences, identity_of
from release.image import NoEngineError, build_image
from release.inventory import check_licences, write_sbom
from release.provenance import write_provenance
from release.publishing import objections
from release.source import Source, take_out
from release.trial import install, try_out


class RefusedError(RuntimeError):
    """The commit cannot be released as it is; the message says why."""


def release(options: argparse.Namespace, work: Path) -> None:
    """Make everything in a folder of its own, and put it in its place once all of it is there and tried."""
    started_at = datetime.now(UTC)
    source = take_out(work / "source")
    identity = identity_of(source.place)
    refuse_if("places differ (make identity)", differences(source.place))
    say(f"Flagpost {identity.version}, commit {source.commit[:12]}")
    if source.changes:
        say(f"left out, for they are not committed: {', '.join(source.changes)}")

    made = work / "made"
    python, chart, sbom = (folder(made / name) for name in ("python", "chart", "sbom"))
    build_distributions(source, identity.version, python)
    build_chart(source, identity.version, chart)
    left_out = image_or_why_not(source, identity, made, options.image_option)

    environment = work / "environment"
    install(python, environment)
    try_out(environment, identity.version)
    say("installed and run away from the checkout")
    say(check_licences(source, environment).rstrip())
    write_sbom(source, environment, sbom)

    write_provenance(made, source, identity, digests(made), left_out, started_at)
    write_checksums(made)
    if options.to_publish:
        refuse_if("not to be published", objections(source, identity, left_out))
    shutil.rmtree(options.to, ignore_errors=True)
    shutil.copytree(made, options.to)
    say(f"{len(digests(made))} files in {options.to}")


def image_or_why_not(source: Source, identity: Identity, made: Path, options: list[str]) -> dict[str, str]:
    """Build the image, or return under its name why there is none."""
    try:
        build_image(source, identity, folder(made / "image"), options)
    except NoEngineError as error:
        (made / "image").rmdir()
        say(f"NO IMAGE: {error}")
        return {"image": str(error)}
    return {}


def folder(path: Path) -> Path:
    """Make a folder."""
    path.mkdir(parents=True)
    return path


def refuse_if(why: str, reasons: list[str]) -> None:
    """Raise RefusedError, if there are reasons."""
    if reasons:
        raise RefusedError(f"{why}:\n  " + "\n  ".join(reasons))


def say(text: str) -> None:
    """To whoever makes the release."""
    print(text, flush=True)


def main() -> int:
    """0: the release is in its place."""
    parser = argparse.ArgumentParser(prog="make release", description="Build the artefacts of the commit.")
    parser.add_argument(
        "--to", type=Path, default=ROOT / "dist" / "release", help="the folder, replaced at the end"
    )
    parser.add_argument("--to-publish", action="store_true", help="refuse what may not be published")
    parser.add_argument(
        "--image-option", action="append", default=[], help="an option of docker build, repeatable"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flagpost-release-") as work:
        try:
            release(options, Path(work))
        except (CommandError, RefusedError) as error:
            print(f"no release: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
