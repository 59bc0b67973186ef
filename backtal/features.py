"""Feature sequences: what the clips of a video became, with their times and what made them.

On disk a sequence is "features v1": an ``.npz`` without pickles, values in float32 or float16.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidFile, NotFound
from backtal.manifest import Backbone, ClipPlan
from backtal.settings import Settings, parse

FORMAT = "backtal-features"
VERSION = 1
FIELDS = (
    "format",
    "version",
    "values",
    "clip_start_seconds",
    "clip_end_seconds",
    "duration_seconds",
    "num_frames_decoded",
    "metadata",
)

FloatArray = NDArray[np.float32]


class FeatureProvenance(Settings):
    """What made a sequence; two sequences with the same one can be compared.

    `backbone_sha256` has one hash a stream, of weights, graph and normalisation; `backbones` is
    what the bundle that made them says of its backbones; `precision` is that of the arithmetic.
    Fields of an unknown origin keep their defaults.
    """

    decoder: str = "unknown"
    resizer: str = "unknown"
    clip_plan: ClipPlan | None = None
    backbone_sha256: tuple[str, ...] = ()
    backbones: tuple[Backbone, ...] = ()
    precision: str = "unknown"

    def made_alike(self, other: FeatureProvenance) -> bool:
        """Whether both say the same. Of `backbones` the hashes are enough."""
        return self.model_copy(update={"backbones": other.backbones}) == other


class _Metadata(Settings):
    streams: tuple[str, ...]
    provenance: FeatureProvenance


@dataclass(frozen=True, eq=False)
class FeatureSequence:
    """The features of one video, clip by clip.

    values: float32 [D, N], the streams one below the other in the order of `streams`.
    clip_start_seconds, clip_end_seconds: float32 [N], the clips' middles strictly rising.
    duration_seconds: of the video. num_frames_decoded: 0 where it is not known.

    Raises InvalidFile, naming the field, where shapes or values do not fit.
    """

    values: FloatArray
    clip_start_seconds: FloatArray
    clip_end_seconds: FloatArray
    duration_seconds: float
    num_frames_decoded: int
    streams: tuple[str, ...]
    provenance: FeatureProvenance

    def __post_init__(self) -> None:
        _check_array("values", self.values, 2, "[D, N]")
        _check_array("clip_start_seconds", self.clip_start_seconds, 1, "[N]")
        _check_array("clip_end_seconds", self.clip_end_seconds, 1, "[N]")
        num_clips = self.values.shape[1]
        for name in ("clip_start_seconds", "clip_end_seconds"):
            length = len(getattr(self, name))
            if length != num_clips:
                raise InvalidFile(f"{name} has {length} clips, values has {num_clips}")
        if not (np.isfinite(self.duration_seconds) and self.duration_seconds > 0):
            raise InvalidFile(
                f"duration_seconds is {self.duration_seconds}, allowed are finite values above 0"
            )
        if self.num_frames_decoded < 0:
            raise InvalidFile(f"num_frames_decoded is {self.num_frames_decoded}, below 0")
        if not self.streams or len(set(self.streams)) != len(self.streams):
            raise InvalidFile(f"streams is {self.streams}, allowed are one or more different names")
        _check_clip_times(self.clip_start_seconds, self.clip_end_seconds)

    @classmethod
    def from_equal_parts(
        cls,
        values: FloatArray,
        duration_seconds: float,
        *,
        streams: tuple[str, ...] = ("rgb",),
        provenance: FeatureProvenance | None = None,
    ) -> FeatureSequence:
        """A sequence whose N clips are N equal parts of `duration_seconds`."""
        _check_array("values", values, 2, "[D, N]")
        edges = np.linspace(0.0, duration_seconds, values.shape[1] + 1).astype(np.float32)
        return cls(
            values=values,
            clip_start_seconds=edges[:-1],
            clip_end_seconds=edges[1:],
            duration_seconds=duration_seconds,
            num_frames_decoded=0,
            streams=streams,
            provenance=provenance or FeatureProvenance(),
        )

    @property
    def feature_dim(self) -> int:
        """D."""
        return int(self.values.shape[0])

    @property
    def num_clips(self) -> int:
        """N."""
        return int(self.values.shape[1])

    def on_grid(self, position_seconds: float) -> FloatArray:
        """The values at the grid's positions, [D, L]: see `resample_to_grid`."""
        return resample_to_grid(
            self.values,
            self.clip_start_seconds,
            self.clip_end_seconds,
            self.duration_seconds,
            position_seconds,
        )

    def save(self, path: Path, dtype: Literal["float32", "float16"] = "float32") -> None:
        """Write features v1, whole or not at all.

        Raises InvalidFile where a value does not fit into float16.
        """
        with np.errstate(over="ignore"):
            values = self.values.astype(dtype)
        if not np.isfinite(values).all():
            raise InvalidFile(
                f"values reach {np.abs(self.values).max():g}, float16 holds up to 65504"
            )
        metadata = _Metadata(streams=self.streams, provenance=self.provenance)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    format=np.array(FORMAT),
                    version=np.array(VERSION),
                    values=values,
                    clip_start_seconds=self.clip_start_seconds,
                    clip_end_seconds=self.clip_end_seconds,
                    duration_seconds=np.array(self.duration_seconds, np.float64),
                    num_frames_decoded=np.array(self.num_frames_decoded, np.int64),
                    metadata=np.array(metadata.model_dump_json()),
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> FeatureSequence:
        """Read features v1. Raises NotFound, or InvalidFile naming the file and the field."""
        fields = read_arrays(path)
        try:
            return _from_fields(fields)
        except InvalidFile as error:
            raise InvalidFile(f"{path}: {error.message}") from None


def resample_to_grid(
    values: FloatArray,
    clip_start_seconds: FloatArray,
    clip_end_seconds: FloatArray,
    duration_seconds: float,
    position_seconds: float,
) -> FloatArray:
    """Features at the grid's positions: [D, N] -> [D, L].

    Position p is sampled at its middle, ``(p + 0.5) * position_seconds``, linearly between the
    middles of the clips around it; before the first and after the last middle the edge is held.
    ``L = max(1, round(duration / position_seconds))``.
    """
    middles = clip_middles(clip_start_seconds, clip_end_seconds)
    return sample_between(values, middles, position_middles(duration_seconds, position_seconds))


def sample_between(
    values: FloatArray,
    middles: NDArray[np.float64],
    positions: NDArray[np.float64],
) -> FloatArray:
    """Features at `positions` seconds [L], from `values` [D, N] at the `middles` [N] of clips."""
    right = np.clip(np.searchsorted(middles, positions), 1, max(1, len(middles) - 1))
    left = right - 1
    right = np.minimum(right, len(middles) - 1)
    span = middles[right] - middles[left]
    weight = (positions - middles[left]) / np.where(span > 0, span, 1.0)
    weight = np.clip(weight, 0.0, 1.0).astype(np.float32)
    lower = values[:, left]
    # Written as a step from the lower value, so that a constant stays what it is to the bit.
    sampled: FloatArray = lower + weight * (values[:, right] - lower)
    return sampled


def position_middles(duration_seconds: float, position_seconds: float) -> NDArray[np.float64]:
    """The middle of each position of a video's grid, seconds [L]."""
    length = max(1, round(duration_seconds / position_seconds))
    return (np.arange(length) + 0.5) * position_seconds


def clip_middles(
    clip_start_seconds: FloatArray, clip_end_seconds: FloatArray
) -> NDArray[np.float64]:
    """The middle of each clip, seconds [N]."""
    return (clip_start_seconds.astype(np.float64) + clip_end_seconds.astype(np.float64)) / 2


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz``, pickles refused. Raises NotFound or InvalidFile."""
    try:
        # NumPy forgets to close a file of its own opening where that is no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InvalidFile(f"{path} is a single array, expected an .npz")
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidFile(f"{path} is no .npz of plain arrays: {error}") from None


def _from_fields(fields: dict[str, NDArray[Any]]) -> FeatureSequence:
    missing = [name for name in FIELDS if name not in fields]
    if missing:
        raise InvalidFile(f"field {missing[0]} is missing, expected {', '.join(FIELDS)}")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise InvalidFile(f"unknown field {unknown[0]}, expected {', '.join(FIELDS)}")
    kind, version = _scalar(fields, "format", "U"), _scalar(fields, "version", "iu")
    if kind != FORMAT or version != VERSION:
        raise InvalidFile(f"format {kind!r} version {version}, expected {FORMAT!r} version 1")
    text = _scalar(fields, "metadata", "U")
    try:
        metadata = parse(_Metadata, json.loads(text), source="metadata")
    except json.JSONDecodeError as error:
        raise InvalidFile(f"metadata is no JSON: {error}") from None
    values = fields["values"]
    if values.dtype not in (np.float32, np.float16):
        raise InvalidFile(f"values is {values.dtype}, allowed are float32 and float16")
    return FeatureSequence(
        values=values.astype(np.float32),
        clip_start_seconds=fields["clip_start_seconds"],
        clip_end_seconds=fields["clip_end_seconds"],
        duration_seconds=float(_scalar(fields, "duration_seconds", "f")),
        num_frames_decoded=int(_scalar(fields, "num_frames_decoded", "iu")),
        streams=metadata.streams,
        provenance=metadata.provenance,
    )


def _scalar(fields: dict[str, NDArray[Any]], name: str, kinds: str) -> Any:
    value = fields[name]
    if value.shape != () or value.dtype.kind not in kinds:
        raise InvalidFile(f"{name} is {value.dtype} {list(value.shape)}, expected one value")
    return value.item()


def _check_array(name: str, array: NDArray[Any], ndim: int, shape: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != ndim:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array)
        raise InvalidFile(f"{name} is {got}, expected float32 {shape}")
    if array.size == 0:
        raise InvalidFile(f"{name} is empty: {list(array.shape)}, expected float32 {shape}")
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidFile(f"{name}{list(where)} is {array[where]}, allowed are finite values")


def _check_clip_times(starts: FloatArray, ends: FloatArray) -> None:
    backwards = np.flatnonzero(ends < starts)
    if len(backwards):
        i = int(backwards[0])
        raise InvalidFile(f"clip {i} ends at {ends[i]} s, before its start at {starts[i]} s")
    still = np.flatnonzero(np.diff(clip_middles(starts, ends)) <= 0)
    if len(still):
        i = int(still[0]) + 1
        raise InvalidFile(
            f"clip {i} ({starts[i]} to {ends[i]} s) does not come after clip {i - 1} "
            f"({starts[i - 1]} to {ends[i - 1]} s)"
        )
