"""The layout in which BackTAL's features are published: one ``.npz`` a video.

``feat_spa [1024, T]`` (RGB), ``feat_tem [1024, T]`` (flow), ``cls_label [C]``, ``vid_name``; for
training ``point_label [T]`` (class C at a click, -100 elsewhere); for test ``frame_num``, ``fps``
and ``duration``. The whole video is resized to T positions, and training files carry no times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidFile
from backtal.features import FeatureProvenance, FeatureSequence, FloatArray, read_arrays

NO_CLICK = -100
PUBLISHED = FeatureProvenance(resizer="published, whole video")
"""Of published files: what made them is not known, but that each is a whole video is."""
STREAM_FIELDS = {"rgb": "feat_spa", "flow": "feat_tem"}


@dataclass(frozen=True, eq=False)
class PublishedFeatures:
    """One published file.

    values: float32 [D, T], RGB above flow. class_label: float32 [C], 1 where the video holds the
    class. click_label: int64 [T], C at a click and -100 elsewhere, None in test files.
    """

    video_name: str
    values: FloatArray
    streams: tuple[str, ...]
    class_label: FloatArray
    click_label: NDArray[np.int64] | None = None
    num_frames: int | None = None
    frames_per_second: float | None = None
    duration_seconds: float | None = None

    def to_sequence(self, duration_seconds: float | None = None) -> FeatureSequence:
        """T equal parts of the video; `duration_seconds` where the file carries none."""
        duration = self.duration_seconds if duration_seconds is None else duration_seconds
        if duration is None:
            raise InvalidFile(f"{self.video_name}: the file has no duration, give one")
        return FeatureSequence.from_equal_parts(
            self.values,
            duration,
            streams=self.streams,
            provenance=PUBLISHED,
        )


def load_published(path: Path) -> PublishedFeatures:
    """Read a published file. Raises NotFound, or InvalidFile naming the file and the field."""
    fields = read_arrays(path)
    try:
        return _from_fields(fields)
    except InvalidFile as error:
        raise InvalidFile(f"{path}: {error.message}") from None


def save_published(path: Path, published: PublishedFeatures) -> None:
    """Write `published` as the released code reads it: each stream has an equal share of D."""
    parts = np.split(published.values, len(published.streams))
    fields: dict[str, Any] = {
        STREAM_FIELDS[stream]: part for stream, part in zip(published.streams, parts, strict=True)
    }
    fields["cls_label"] = published.class_label
    fields["vid_name"] = np.array(published.video_name)
    optional = {
        "point_label": published.click_label,
        "frame_num": published.num_frames,
        "fps": published.frames_per_second,
        "duration": published.duration_seconds,
    }
    fields.update({name: value for name, value in optional.items() if value is not None})
    with path.open("wb") as file:
        np.savez(file, **fields)


def _from_fields(fields: dict[str, NDArray[Any]]) -> PublishedFeatures:
    streams = tuple(stream for stream, name in STREAM_FIELDS.items() if name in fields)
    if not streams:
        raise InvalidFile(f"has neither of {', '.join(STREAM_FIELDS.values())}")
    parts = [_numbers(fields, STREAM_FIELDS[stream], 2) for stream in streams]
    lengths = {part.shape[1] for part in parts}
    if len(lengths) > 1:
        raise InvalidFile(f"feat_spa and feat_tem differ in length: {sorted(lengths)}")
    clicks = None
    if "point_label" in fields:
        clicks = _numbers(fields, "point_label", 1).astype(np.int64)
        if len(clicks) not in lengths:
            raise InvalidFile(f"point_label has {len(clicks)} positions, the features {lengths}")
    frame_num = _optional_number(fields, "frame_num")
    return PublishedFeatures(
        video_name=_name(fields),
        values=np.concatenate(parts).astype(np.float32),
        streams=streams,
        class_label=_numbers(fields, "cls_label", 1).astype(np.float32),
        click_label=clicks,
        num_frames=None if frame_num is None else int(frame_num),
        frames_per_second=_optional_number(fields, "fps"),
        duration_seconds=_optional_number(fields, "duration"),
    )


def _numbers(fields: dict[str, NDArray[Any]], name: str, ndim: int) -> NDArray[Any]:
    if name not in fields:
        raise InvalidFile(f"field {name} is missing")
    array = fields[name]
    if array.ndim != ndim or array.dtype.kind not in "fiub" or array.size == 0:
        raise InvalidFile(
            f"{name} is {array.dtype} {list(array.shape)}, expected numbers in {ndim} dimensions"
        )
    return array


def _optional_number(fields: dict[str, NDArray[Any]], name: str) -> float | None:
    if name not in fields:
        return None
    array = fields[name]
    if array.size != 1 or array.dtype.kind not in "fiu":
        raise InvalidFile(f"{name} is {array.dtype} {list(array.shape)}, expected one number")
    return float(array.reshape(()))


def _name(fields: dict[str, NDArray[Any]]) -> str:
    if "vid_name" not in fields:
        raise InvalidFile("field vid_name is missing")
    array = fields["vid_name"]
    if array.size != 1 or array.dtype.kind not in "US":
        raise InvalidFile(f"vid_name is {array.dtype} {list(array.shape)}, expected one text")
    value = array.reshape(()).item()
    return value.decode() if isinstance(value, bytes) else str(value)
