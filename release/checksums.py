"""SHA-256 of what is released, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

CHECKSUMS: Final = "SHA256SUMS"


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def write_checksums(folder: Path) -> None:
    """Write down what lies below a folder."""
    lines = [f"{digest}  {name}\n" for name, digest in digests(folder).items()]
    (folder / CHECKSUMS).write_text("".join(lines))
