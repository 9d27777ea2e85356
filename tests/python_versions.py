"""The tests of `make test` on other Pythons, and on the oldest dependencies that are allowed (`make test-versions`).

In: versions, such as "3.12 lowest", and pytest's arguments. Out: pytest's output for each, one line for each at the
end, and exit code 1 if one failed. A version that this machine does not have is reported and skipped. `lowest`: the
Python that runs this program, with the oldest dependencies that the packages' own requirements allow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from release.audit import oldest  # noqa: E402 - the checkout is no package
from release.commands import UV  # noqa: E402

TOOLS = ROOT / ".tools"
LOWEST = "lowest"
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def interpreter(version: str) -> str | None:
    """A Python of that version: this one, one on the PATH, or one of pyenv; None: there is none."""
    if version == LOWEST:
        return sys.executable
    for candidate in _candidates(version):
        asked = [candidate, "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    on_the_path = which(f"python{version}")
    if on_the_path is not None:
        yield on_the_path
    yield from map(str, sorted(PYENV.glob(f"{version}.*/bin/python{version}"), reverse=True))


def environment(version: str, python: str) -> Path:
    """Create or update the virtual environment for that version; returns its Python."""
    place = TOOLS / f"python-{version}"
    command = "sync --quiet --locked --all-packages --all-extras --group deploy --no-python-downloads"
    subprocess.run(
        [UV, *command.split(), "--python", python],
        cwd=ROOT, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(place)}, check=True,
    )  # fmt: skip
    made = place / "bin" / "python"
    if version == LOWEST:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write(oldest(ROOT))
            requirements.flush()
            install = [
                "pip",
                "install",
                "--quiet",
                "--python",
                str(made),
                "--requirements",
                requirements.name,
            ]
            subprocess.run([UV, *install], cwd=ROOT, check=True)
    return made


def tried(version: str, pytest_arguments: list[str]) -> tuple[bool, str]:
    """Whether the tests passed or were skipped because there is no such Python, and a line that says which."""
    python = interpreter(version)
    if python is None:
        return True, "NOT TRIED: this machine does not have it"
    made = environment(version, python)
    sys.stdout.write(f"\n== Python {version}: {made.parent.parent.relative_to(ROOT)}, made with {python}\n")
    sys.stdout.flush()
    code = subprocess.run([made, "-m", "pytest", *pytest_arguments], cwd=ROOT, check=False).returncode
    return code == 0, "passed" if code == 0 else f"FAILED: pytest ended with {code}"


def main(versions: str, *pytest_arguments: str) -> int:
    """Test each version, even if another one fails."""
    results = {version: tried(version, list(pytest_arguments)) for version in versions.split()}
    sys.stdout.write("".join(f"Python {version}: {said}\n" for version, (_, said) in results.items()))
    return int(not all(well for well, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
