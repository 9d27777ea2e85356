"""A real Kubernetes API server, its etcd and Helm, built from their Go modules, once, into .cache/.

In: versions. Out: paths of programs, or the name of the tool that is missing to build them. A first build takes some
minutes of processor time; downloads are verified with Go's checksum database.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from real_kafka.parts import CACHE, fetch_once

KUBERNETES: Final = "v1.36.3"
STAGING: Final = KUBERNETES.replace("v1.", "v0.")
"""The version of the modules that Kubernetes keeps in its own tree, under staging/."""
ETCD: Final = "v3.7.3"
HELM: Final = "v4.3.1"
BUILD_SECONDS: Final = 1800


@cache
def missing() -> str | None:
    """The first tool that this machine lacks for building and running a cluster; None: it lacks none."""
    for program in ("go", "openssl"):
        if shutil.which(program) is None:
            return program
    return None


def api_server() -> Path:
    """The path of kube-apiserver; it is built if it was not built before."""

    def build(into: Path) -> None:
        _go("mod", "edit", f"-require=k8s.io/kubernetes@{KUBERNETES}", *_staging_replaced(into), at=into)
        # Charts ask for the version, which Kubernetes' own build writes into the program.
        version = f"-ldflags=-X k8s.io/component-base/version.gitVersion={KUBERNETES}"
        _go(
            "build",
            "-mod=mod",
            version,
            "-o",
            "kube-apiserver",
            "k8s.io/kubernetes/cmd/kube-apiserver",
            at=into,
        )

    return _built("kube-apiserver", KUBERNETES, build)


def etcd() -> Path:
    """The path of etcd; it is built if it was not built before."""

    def build(into: Path) -> None:
        _go("get", f"go.etcd.io/etcd/server/v3@{ETCD}", at=into)
        _go("build", "-o", "etcd", "go.etcd.io/etcd/server/v3", at=into)

    return _built("etcd", ETCD, build)


def helm() -> Path:
    """The path of helm; it is built if it was not built before."""

    def build(into: Path) -> None:
        _go("get", f"helm.sh/helm/v4/cmd/helm@{HELM}", at=into)
        _go("build", "-o", "helm", "helm.sh/helm/v4/cmd/helm", at=into)

    return _built("helm", HELM, build)


def _built(program: str, version: str, build: Callable[[Path], None]) -> Path:
    """Build a program in a Go module of its own, unless it was built before; returns its path."""

    def fetch(into: Path) -> None:
        _go("mod", "init", f"flagpost.test/{program}", at=into)
        build(into)

    return fetch_once(CACHE / f"{program}-{version}", fetch) / program


def _staging_replaced(at: Path) -> list[str]:
    """Options of `go mod edit` that replace the modules under staging/, a folder that exists only in Kubernetes' own
    repository, by the published ones.
    """
    downloaded = json.loads(_go("mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}", at=at))
    its_module = json.loads(_go("mod", "edit", "-json", downloaded["GoMod"], at=at))
    staged = [each["Old"]["Path"] for each in its_module["Replace"]]
    return [f"-replace={module}={module}@{STAGING}" for module in staged]


def _go(*arguments: str, at: Path) -> str:
    """Run go in a folder, at low priority; returns its standard output. Raises RuntimeError if it fails."""
    command = ["nice", "-n", "10", "go", *arguments]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout
