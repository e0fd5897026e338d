"""What made the numbers? Hash of the code, versions and commit of what runs here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def code_hash() -> str:
    """Hash of the source that decides numbers: vitok_core and this package; 16 hex digits.

    Recorded with every attempt. Results of other code are reported, never silently rerun.
    """
    import hashlib

    import vitok_core

    digest = hashlib.sha256()
    for package in (Path(vitok_core.__file__).parent, Path(__file__).parent):
        for path in sorted(package.rglob("*.py")):
            name = str(path.relative_to(package.parent))
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def versions() -> Mapping[str, str]:
    """Versions of the installed packages that may decide numbers, or whether workers understand."""
    import importlib.metadata

    found = {}
    for package in (
        "sweepctl", "torch", "torchvision", "numpy", "lpips", "torch-fidelity", "av", "dask",
    ):  # fmt: skip
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def software() -> dict[str, Any]:
    """Versions and commit of what runs here: provenance the driver keeps with every attempt."""
    import subprocess

    def git(*words: str) -> str | None:
        root = str(Path(__file__).parent)
        try:
            done = subprocess.run(
                ["git", "-C", root, *words], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None  # not a checkout, or no git: the versions have to do
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {
        "code": code_hash(),
        "commit": commit,
        "dirty": None if commit is None else bool(git("status", "--porcelain", "-uno")),
        "versions": dict(versions()),
    }
