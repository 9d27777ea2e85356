"""The artefacts, installed away from the checkout and run there.

In: the folder of distributions. Out: an environment of its own that has them with everything that they need, nothing
of it from the checkout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from release.commands import UV, CommandError, run
from release.distributions import REQUIREMENTS

COMMANDS: Final = [
    "check",
    "consume",
    "dead-letters",
    "demo",
    "erase",
    "explain",
    "export",
    "import",
    "plan",
    "preview",
    "reconcile",
    "rehearse",
    "sql",
    "suppress",
    "tail",
    "topics",
    "web",
]
LEAVES_OUT: Final = {"PYTHONPATH": "", "VIRTUAL_ENV": ""}
EVENT: Final = {
    "type": "decision",
    "visitor_id": "visitor-1",
    "flag_key": "checkout",
    "enabled": True,
    "variation_key": "treatment",
    "decision_event_dispatched": True,
}
INSIDE: Final = """
from importlib.resources import files
import flagpost_consumer, flagpost_kafka, flagpost_publisher, flagpost_schemas, flagpost_settings
for package in (flagpost_consumer, flagpost_kafka, flagpost_publisher, flagpost_schemas, flagpost_settings):
    assert "site-packages" in package.__file__, f"imported from {package.__file__}"
shipped = {path.name for path in (files("flagpost_schemas") / "avro").iterdir()}
records = (*flagpost_schemas.EVENT_TYPES, flagpost_schemas.Settlements)
lacking = {f"{record.__name__}.avsc" for record in records} - shipped
assert records and not lacking, f"the wheel lacks {lacking}"
assert (files("flagpost_consumer") / "web" / "static" / "style.css").is_file(), "the wheel lacks the page's style"
"""


def install(distributions: Path, environment: Path) -> None:
    """Make the environment, as the heading of the requirements says."""
    python = environment / "bin" / "python"
    wanted = f"--quiet --find-links . --require-hashes --requirement {REQUIREMENTS}"
    run([UV, "venv", "--quiet", "--python", sys.executable, environment], environment.parent)
    run([UV, "pip", "install", "--python", python, *wanted.split()], distributions, LEAVES_OUT)


def try_out(environment: Path, version: str) -> None:
    """Run what was installed, in a folder that has nothing else.

    Raises:
        CommandError: a program does not run, or is not what the release says.
    """
    elsewhere = environment / "elsewhere"
    elsewhere.mkdir()
    programs = environment / "bin"

    def said(*words: str, given: str = "") -> str:
        return run([programs / words[0], *words[1:]], elsewhere, LEAVES_OUT, given)

    for program in ("flagpost", "flagpost-gateway"):
        if version not in said(program, "--version").split():
            raise CommandError(f"{program} is not of version {version}")
    for command in COMMANDS:
        said("flagpost", command, "--help")
    said("python", "-c", INSIDE)
    if "treatment" not in said("flagpost", "preview", "-", given=json.dumps(EVENT)):
        raise CommandError("flagpost preview does not show the event's request")
