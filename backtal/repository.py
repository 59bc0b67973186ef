"""Which bundles a model repository holds, and in which versions.

A bundle's public model has numbered versions, ``<bundle>/<number>/manifest.json``; the highest is
the one that is served. Networks are named by their content and have the version 1 only.
"""

from __future__ import annotations

from pathlib import Path

from backtal.errors import NotFound
from backtal.manifest import MANIFEST_NAME, Manifest, Network

STREAM_SUFFIX = "_stream"
NETWORK_FILE = "model.onnx"
FLOAT32_FILE = "float32.onnx"


def bundle_names(repository: Path) -> list[str]:
    """The bundles, sorted; their streaming twins are not listed."""
    found = {path.parent.parent.name for path in repository.glob(f"*/*/{MANIFEST_NAME}")}
    return sorted(name for name in found if not name.endswith(STREAM_SUFFIX) and name[0] != ".")


def public_models(bundle: str) -> tuple[str, str]:
    """A bundle's models: its stream, then the public one, the order in which they take a version.

    A version is served from the moment that the public model has it.
    """
    return f"{bundle}{STREAM_SUFFIX}", bundle


def bundle_versions(repository: Path, model: str) -> list[int]:
    """The versions of a bundle's public model, rising; none where there is no such bundle."""
    found = (path.parent.name for path in (repository / model).glob(f"*/{MANIFEST_NAME}"))
    return sorted(int(name) for name in found if name.isdecimal())


def load_bundle(repository: Path, bundle: str, version: int | None = None) -> Manifest:
    """The manifest of a bundle, of its highest version unless one is named.

    Raises NotFound, naming the bundles or versions there are.
    """
    versions = bundle_versions(repository, bundle)
    if not versions:
        names = ", ".join(bundle_names(repository)) or "none"
        raise NotFound(f"no bundle {bundle!r} in {repository}; it has: {names}")
    if version is not None and version not in versions:
        raise NotFound(f"{repository} has no version {version} of {bundle}, only {versions}")
    return Manifest.load(manifest_path(repository, bundle, version or versions[-1]))


def manifest_path(repository: Path, model: str, version: int) -> Path:
    """Where the manifest of that version lies."""
    return repository / model / str(version) / MANIFEST_NAME


def network_path(repository: Path, model: str) -> Path:
    """Where a network's file lies."""
    return repository / model / "1" / NETWORK_FILE


def float32_path(repository: Path, network: Network) -> Path:
    """Where the file of a network in float32 lies: its own, where any precision reads that."""
    path = network_path(repository, network.model)
    return path if network.float32_sha256 is None else path.with_name(FLOAT32_FILE)
