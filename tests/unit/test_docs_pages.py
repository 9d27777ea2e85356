"""The links of every page lead to something that exists, and its commands are valid."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flagpost_consumer.commands.cli import flagpost

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples", "helm", "benchmarks", "consumer", "publisher", "schemas")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")
SHELL = re.compile(r"^( *)```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
FLAGPOST = re.compile(r"^(?:\.venv/bin/)?flagpost [^|>&\n]+", re.MULTILINE)
FILE = re.compile(r"[\w-]+\.(csv|jsonl|json|yaml|parquet)(\.gz)?")
MAKE = re.compile(r"^make ([a-z-]+)", re.MULTILINE)


def pages() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
    return [*sorted(ROOT.glob("*.md")), *sorted(path for path in found if "node_modules" not in path.parts)]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors_in(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_blocks(page: Path) -> Iterator[str]:
    """The shell commands of a page, as a reader pastes them: continued lines are joined into one."""
    for indent, block in SHELL.findall(page.read_text()):
        lines = [line.removeprefix(indent) for line in block.splitlines()]
        yield "\n".join(lines).replace("\\\n", " ")


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_to_something_that_exists(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors_in(path), f"{target} has no heading #{anchor}"


@pytest.mark.parametrize("page", pages(), ids=named)
def test_commands_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in shell_blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert set(MAKE.findall(block)) <= targets
        for line in FLAGPOST.findall(block):
            arguments = shlex.split(line.partition("#")[0])[1:]
            for name in filter(FILE.fullmatch, arguments):
                Path(name).touch()  # the reader has this file
            try:
                parse(flagpost, arguments)
            except click.UsageError as error:
                pytest.fail(f"flagpost {shlex.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("page", pages(), ids=named)
def test_an_install_line_names_packages_that_exist(page: Path) -> None:
    for line in page.read_text().splitlines():
        for packages in re.findall(r"pip install ([^`#]*)", line):
            ours = {word.strip("'\"") for word in packages.split() if "flagpost-" in word}
            released = "after a release" in page.read_text().lower()
            assert not ours or "--find-links" in packages or released, f"no index has {ours}"


def test_there_are_commands_to_check() -> None:
    given = [line for page in pages() for block in shell_blocks(page) for line in FLAGPOST.findall(block)]
    assert len(given) > 50


def parse(command: click.Command, arguments: list[str]) -> None:
    """Parse arguments as the command does, without running it. Raises click.UsageError."""
    context = command.make_context(command.name, list(arguments))
    if isinstance(command, click.Group):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None, name
        parse(inner, rest)
