"""The import rules (pyproject.toml, tool.importlinter) are kept, and planted imports that break them are found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from deadlines import stretched

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "consumer": ["flagpost_consumer"],
    "publisher": ["flagpost_publisher"],
    "schemas": ["flagpost_schemas", "flagpost_settings", "flagpost_kafka", "flagpost_http"],
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages in a folder."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    command += ["--config", str(ROOT / "pyproject.toml")]
    environment = {"PYTHONPATH": str(folder), "PATH": "", "COLUMNS": "200"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(300),
    )


def copied(folder: Path) -> Path:
    for member, packages in PACKAGES.items():
        for package in packages:
            shutil.copytree(ROOT / member / "src" / package, folder / package)
    return folder


def test_no_import_runs_upwards() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
    assert "4 kept, 0 broken" in result.stdout


def test_planted_upward_imports_are_found_by_name(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    planted = {
        "flagpost_consumer/core/planning/plan.py": "flagpost_consumer.core.books.dedupe",
        "flagpost_consumer/core/tracks/lanes.py": "flagpost_consumer.core.metadata.batches",
        "flagpost_consumer/adapters/http/client.py": "flagpost_consumer.adapters.pendo.http",
        "flagpost_consumer/service/commits.py": "flagpost_consumer.commands.cli",
        "flagpost_schemas/events.py": "flagpost_kafka",
    }
    for name, imported in planted.items():
        with (tree / name).open("a") as file:
            file.write(f"\n\ndef _planted() -> None:\n    import {imported}\n")
    result = lint(tree)
    assert result.returncode == 1, result.stderr
    assert "0 kept, 4 broken" in result.stdout
    for name, imported in planted.items():
        importer = name.removesuffix(".py").replace("/", ".")
        assert f"{importer} -> {imported}" in " ".join(result.stdout.split()), result.stdout


def test_a_new_room_has_to_be_in_a_contract(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    room = tree / "flagpost_consumer" / "core" / "attic"
    room.mkdir()
    (room / "__init__.py").write_text('"""A room that no contract names."""\n')
    result = lint(tree)
    assert result.returncode == 1
    assert "attic" in result.stdout
