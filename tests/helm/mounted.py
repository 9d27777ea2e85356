"""Writes a container's files and environment as a node would provide them.

In: a release, one of its pods, a container of that pod, and a directory that stands for the container's root. Out:
the files of its volumes, and the environment, whose paths lead into that directory. What is not in the release itself
(an existing Secret, a user's volume) is filled with texts that name their source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from helm.rendering import Object, Rendered

PATH: Final = re.compile(r"(?<![\w/.:])/[\w./-]+")
"""An absolute path in a variable's text."""

SECRETS: Final = "/run/secrets/flagpost/"
"""Where the chart mounts secrets; settings may name files there."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """The configuration file and the environment that a program finds in its container."""

    config: Path
    environ: dict[str, str]


def mounted(release: Rendered, pod: Object, container: Object, root: Path) -> Mounted:
    """Write the container's files under `root`."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    variables = {each["name"]: _variable_text(each) for each in container["env"]}
    for mount in container["volumeMounts"]:
        held = dict(_held(release, volumes[mount["name"]]))
        for path, text in held.items():
            in_root = text.replace(SECRETS, f"{_within(root, SECRETS)}/")
            _write(_within(root, mount["mountPath"]) / path, in_root)
        if not held:
            _write_what_is_named(mount["mountPath"], variables, root)
    environ = {
        name: PATH.sub(lambda found: str(_within(root, found[0])), text) for name, text in variables.items()
    }
    return Mounted(Path(environ["FLAGPOST_CONFIG"]), environ)


def _held(release: Rendered, volume: Object) -> Iterator[tuple[str, str]]:
    """The files of a volume that the chart fills: paths within it, and texts."""
    for each in release.all_of("ConfigMap"):
        if volume.get("configMap") == {"name": each["metadata"]["name"]}:
            yield from each.get("data", {}).items()
    for source in volume.get("projected", {"sources": ()})["sources"]:
        secret = source["secret"]
        for item in secret["items"]:
            yield item["path"], _secret_text(release, secret["name"], item["key"])


def _variable_text(variable: Object) -> str:
    text: str = (
        variable["value"] if "value" in variable else "/".join(variable["valueFrom"]["secretKeyRef"].values())
    )
    return text


def _secret_text(release: Rendered, name: str, key: str) -> str:
    for each in release.all_of("Secret"):
        if each["metadata"]["name"] == name:
            text: str = each["stringData"][key]
            return text
    return f"{name}/{key}"


def _write_what_is_named(mount_path: str, variables: dict[str, str], root: Path) -> None:
    """Fill a user's volume with the files that variables name."""
    for text in variables.values():
        for path in PATH.findall(text):
            if path.startswith(f"{mount_path}/"):
                _write(_within(root, path), path)


def _within(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
