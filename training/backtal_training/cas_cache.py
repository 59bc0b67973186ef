"""The raw CAS of a set of videos, computed once and kept: what settings are searched on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidFile
from backtal.evaluation import Detections
from backtal.features import FloatArray, read_arrays
from backtal.localization import localize
from backtal.manifest import BundleDescription
from backtal_training.checkpoint import WEIGHTS_NAME
from backtal_training.datasets import Sample
from backtal_training.network import BackTALNetwork
from backtal_training.trainer import activations

FORMAT = "backtal CAS cache 1"


@dataclass(frozen=True, eq=False)
class VideoCas:
    """What the network says of one video: `cas` raw [C+1, L] and `magnitude` [L]."""

    name: str
    duration_seconds: float
    cas: FloatArray
    magnitude: FloatArray


def compute(network: BackTALNetwork, samples: Sequence[Sample]) -> tuple[VideoCas, ...]:
    """Run the network on every sample."""
    return tuple(
        VideoCas(sample.name, sample.duration_seconds, cas, magnitude)
        for sample, cas, magnitude in activations(network, samples)
    )


def detect(videos: Sequence[VideoCas], description: BundleDescription) -> Detections:
    """Each video's segments, through the localization that answers requests."""
    return {
        video.name: localize(
            video.cas,
            video.magnitude,
            description=description,
            duration_seconds=video.duration_seconds,
        )
        for video in videos
    }


def fingerprint(checkpoint: Path, features: Mapping[str, Path], grid: Mapping[str, object]) -> str:
    """The SHA-256 of all that a CAS follows from: weights, grid, and each video's feature file."""
    digest = hashlib.sha256(json.dumps(dict(grid), sort_keys=True).encode())
    digest.update((checkpoint / WEIGHTS_NAME).read_bytes())
    for name, path in sorted(features.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def save(path: Path, source_sha256: str, videos: Sequence[VideoCas]) -> None:
    """Write the cache, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "source_sha256": np.array(source_sha256),
        "names": np.array([video.name for video in videos]),
        "duration_seconds": np.array([video.duration_seconds for video in videos]),
    }
    for index, video in enumerate(videos):
        arrays[f"cas_{index}"] = video.cas
        arrays[f"magnitude_{index}"] = video.magnitude
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, source_sha256: str) -> tuple[VideoCas, ...] | None:
    """The cache's videos; None where there is no cache, or it is of something else.

    Raises InvalidFile for a file that is no such cache: it is somebody else's.
    """
    if not path.exists():
        return None
    arrays = read_arrays(path)
    if str(arrays.get("format")) != FORMAT:
        raise InvalidFile(f"{path} is no {FORMAT!r}")
    try:
        if str(arrays["source_sha256"]) != source_sha256:
            return None
        names, durations = arrays["names"].tolist(), arrays["duration_seconds"].tolist()
        return tuple(
            VideoCas(name, seconds, arrays[f"cas_{index}"], arrays[f"magnitude_{index}"])
            for index, (name, seconds) in enumerate(zip(names, durations, strict=True))
        )
    except (KeyError, ValueError) as error:
        raise InvalidFile(f"{path} is a damaged CAS cache: {error}") from None
