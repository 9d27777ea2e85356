"""The chart: the archive that Helm installs, and the same as an OCI image layout, which a registry takes in.

Helm's own `package` writes the time of packaging into the archive. This one has the time of the commit, so the same
commit gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import yaml

from release.source import Source

CONFIG_TYPE: Final = "application/vnd.cncf.helm.config.v1+json"
CONTENT_TYPE: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
ANNOTATION: Final = "org.opencontainers.image"


def build_chart(source: Source, version: str, target: Path) -> None:
    """Write the archive and the layout into an empty folder."""
    chart = source.place / "helm" / "flagpost"
    archive = _archive(chart, source.epoch)
    (target / f"flagpost-{version}.tgz").write_bytes(archive)
    metadata = yaml.safe_load((chart / "Chart.yaml").read_text())
    _write_layout(target / "oci", metadata, archive, source)


def _archive(chart: Path, epoch: int) -> bytes:
    """The files that .helmignore leaves, Chart.yaml first, links followed."""
    ignored = (chart / ".helmignore").read_text().split()
    files = [path for path in chart.rglob("*") if path.is_file() and not _matches(path, ignored)]
    files.sort(key=lambda path: (path.name != "Chart.yaml", path.relative_to(chart).as_posix()))
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in files:
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"flagpost/{path.relative_to(chart).as_posix()}")
            entry.size, entry.mtime = len(content), epoch
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _matches(path: Path, patterns: list[str]) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in [*patterns, ".helmignore"])


def _write_layout(layout: Path, metadata: Mapping[str, Any], archive: bytes, source: Source) -> None:
    """An OCI image layout with one manifest, which is what `helm push` would put into a registry."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    config = json.dumps(metadata, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _put(blobs, CONFIG_TYPE, config),
        "layers": [_put(blobs, CONTENT_TYPE, archive)],
        "annotations": _annotations(metadata, source),
    }
    listed = _put(blobs, MANIFEST_TYPE, json.dumps(manifest, sort_keys=True).encode())
    named = {**listed, "annotations": {f"{ANNOTATION}.ref.name": str(metadata["version"])}}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [named]}
    (layout / "index.json").write_text(json.dumps(index, sort_keys=True))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _annotations(metadata: Mapping[str, Any], source: Source) -> dict[str, str]:
    return {
        **metadata["annotations"],
        f"{ANNOTATION}.title": str(metadata["name"]),
        f"{ANNOTATION}.description": str(metadata["description"]),
        f"{ANNOTATION}.version": str(metadata["version"]),
        f"{ANNOTATION}.url": str(metadata["home"]),
        f"{ANNOTATION}.source": str(metadata["home"]),
        f"{ANNOTATION}.revision": source.commit,
        f"{ANNOTATION}.created": source.committed_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _put(blobs: Path, media_type: str, content: bytes) -> dict[str, object]:
    """Store a blob under its digest; returns its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
