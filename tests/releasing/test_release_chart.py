"""The chart of a release: Helm renders the archive like the folder, and pulls the OCI layout from a registry."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from helm.missing_tools import do_without
from helm.rendering import value_sets, values_of
from release.checksums import sha256
from release.identity import LICENCE
from releasing.releases import Released

try:
    from helm_python import Chart, RegistryClient, lint
except ModuleNotFoundError as error:
    do_without(f"{error.name}, of the group `deploy`")

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]


def archive_of(released: Released) -> Path:
    return released.folder / "chart" / f"flagpost-{released.identity.version}.tgz"


def manifest_in(layout: Path) -> tuple[str, bytes]:
    """The digest of a layout's only manifest, and its bytes."""
    (listed,) = json.loads((layout / "index.json").read_text())["manifests"]
    digest: str = listed["digest"]
    return digest, (layout / "blobs" / digest.replace(":", "/")).read_bytes()


@contextmanager
def registry(layout: Path) -> Iterator[str]:
    """Run a registry on loopback with the content of a layout, which is read by the OCI distribution API."""
    manifest_digest, manifest = manifest_in(layout)
    media_type = json.loads(manifest)["mediaType"]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, reference = self.path.removeprefix("/v2/flagpost/").partition("/")
            digest = manifest_digest if kind == "manifests" else reference
            blob = layout / "blobs" / digest.replace(":", "/")
            content = blob.read_bytes() if blob.is_file() else b""
            self.send_response(200 if content else 404)
            self.send_header(
                "content-type", media_type if kind == "manifests" else "application/octet-stream"
            )
            self.send_header("docker-content-digest", digest)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_helm_renders_the_archive_like_the_charts_folder(released: Released) -> None:
    packed, folder = Chart.load(archive_of(released)), Chart.load(released.checkout / "helm" / "flagpost")
    assert (packed.name, packed.version) == ("flagpost", released.identity.version)
    for name in value_sets():
        given = {"name": "flagpost", "namespace": "tracking"}
        assert packed.render(values_of(name), **given) == folder.render(values_of(name), **given)
    assert not lint(archive_of(released), values_of("minimal"), strict=True, namespace="tracking")["errors"]


def test_the_archive_has_the_licence(released: Released) -> None:
    with tarfile.open(archive_of(released)) as archive:
        for name in LICENCE:
            file = archive.extractfile(f"flagpost/{name}")
            assert file is not None
            assert file.read() == (released.checkout / name).read_bytes()
    metadata = Chart.load(archive_of(released)).metadata
    assert metadata["home"] == released.identity.home
    assert metadata["annotations"]["artifacthub.io/license"] == "Apache-2.0"


def test_helm_pulls_the_layout_from_a_registry(released: Released, tmp_path: Path) -> None:
    layout = released.folder / "chart" / "oci"
    with (
        registry(layout) as host,
        RegistryClient(plain_http=True, credentials_file=tmp_path / "none.json") as client,
    ):
        resolved = client.resolve(f"oci://{host}/flagpost:{released.identity.version}")
        client.pull(f"oci://{host}/flagpost", version=released.identity.version, destination=tmp_path)
    digest, manifest = manifest_in(layout)
    assert resolved["digest"] == digest
    assert sha256(tmp_path / archive_of(released).name) == sha256(archive_of(released))
    annotations = json.loads(manifest)["annotations"]
    assert annotations["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert annotations["org.opencontainers.image.revision"] == released.git("rev-parse", "HEAD")
