"""Whether a version of a bundle is whole: every file there, every network the one it names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backtal.errors import InvalidFile, NotFound
from backtal.manifest import Manifest, Network
from backtal.repository import STREAM_SUFFIX, float32_path, manifest_path, network_path

PIECE_BYTES = 2**20


def check_version(repository: Path, bundle: str, version: int) -> Manifest:
    """The manifest of a version that is whole.

    Raises NotFound for a file that is missing, InvalidFile by the file's name for one that is not
    what the manifest says.
    """
    path = manifest_path(repository, bundle, version)
    manifest = Manifest.load(path)
    if manifest.description.name != bundle:
        raise InvalidFile(f"{path} is of the bundle {manifest.description.name}, not of {bundle}")
    for network in manifest.networks:
        _check_network(repository, manifest, network)
    twin = manifest_path(repository, f"{bundle}{STREAM_SUFFIX}", version)
    # As they lie there: an older release may have written them in another form.
    if text_of(twin) != text_of(path):
        raise InvalidFile(f"{twin} differs from {path}")
    for folder in (path.parent, twin.parent):
        text_of(folder / "model.py")
    return manifest


def text_of(path: Path) -> str:
    """A file's text. Raises NotFound, and InvalidFile for what is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except UnicodeDecodeError:
        raise InvalidFile(f"{path} is no text") from None


def sha256_of_file(path: Path) -> str:
    """Of a file of any size, a piece at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _check_network(repository: Path, manifest: Manifest, network: Network) -> None:
    wanted = {network_path(repository, network.model): network.sha256}
    if network.float32_sha256 is not None:
        wanted[float32_path(repository, network)] = network.float32_sha256
    for path, sha256 in wanted.items():
        if not path.is_file():
            raise NotFound(f"no such file: {path}, the network {network.model}")
        digest = sha256_of_file(path)
        if digest != sha256:
            raise InvalidFile(
                f"{path} has the SHA-256 {digest}, the manifest of {manifest.description.name} "
                f"says {sha256}"
            )
