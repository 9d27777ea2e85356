"""Reads survivors.toml: the mutants that may survive, each with a reason."""

from __future__ import annotations

import tomllib
from pathlib import Path

_FILE = Path(__file__).with_name("survivors.toml")


def read_explanations() -> dict[str, str]:
    """By a mutant's key, the reason why no test can, or should, fail because of it.

    Raises:
        ValueError: a reason is missing, or a mutant is named twice.
    """
    explanations: dict[str, str] = {}
    for entry in tomllib.loads(_FILE.read_text("utf-8")).get("survivor", []):
        reason = entry["reason"].strip()
        if not reason:
            raise ValueError(f"{_FILE.name} gives no reason for {entry['mutants'][0]}")
        for key in entry["mutants"]:
            if key in explanations:
                raise ValueError(f"{_FILE.name} names this mutant twice: {key}")
            explanations[key] = reason
    return explanations
