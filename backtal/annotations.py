"""What people said of videos: ground truth in ActivityNet's format, and clicks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtal.clicks import Click, Clicks
from backtal.errors import InvalidArgument, InvalidFile
from backtal.fields import (
    expect_interval,
    expect_list,
    expect_number,
    expect_object,
    expect_text,
    parse_json_object,
    read_bytes,
)

__all__ = ["Click", "Clicks", "GroundTruth", "Instance", "VideoTruth"]


@dataclass(frozen=True)
class Instance:
    """An annotated action."""

    start_seconds: float
    end_seconds: float
    label: str


@dataclass(frozen=True)
class VideoTruth:
    """What is known of one video; `frames_per_second` is None where the file has none."""

    subset: str
    duration_seconds: float
    frames_per_second: float | None
    instances: tuple[Instance, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that occur, each once, in the order they first occur."""
        return tuple(dict.fromkeys(instance.label for instance in self.instances))


@dataclass(frozen=True)
class GroundTruth:
    """Annotated videos by name.

    Attributes:
        videos: in the order of the file.
        classes: all that the data set knows, also those without an instance here; in the
            order of the file's `activity_list` where it has one, else sorted.
        source: the file's name, for messages.
    """

    videos: Mapping[str, VideoTruth]
    classes: tuple[str, ...]
    source: str = "ground truth"

    @classmethod
    def load(cls, path: Path) -> GroundTruth:
        """Read ActivityNet's JSON, or the THUMOS14 file in its likeness.

        Raises NotFound, or InvalidFile naming the video, the annotation and the value.
        """
        return cls.parse(read_bytes(path), str(path))

    @classmethod
    def parse(cls, content: bytes, source: str = "ground truth") -> GroundTruth:
        """Read the bytes of such a file. Raises InvalidFile."""
        document = parse_json_object(content, source)
        database = expect_object(document.get("database"), f"{source}: database")
        videos = {
            name: _video(entry, f"{source}: database.{name}") for name, entry in database.items()
        }
        return cls(videos, _classes(document, videos, source), source)

    def subset(self, *names: str) -> GroundTruth:
        """Only the videos of these subsets. InvalidArgument for one that no video is of."""
        known = sorted({video.subset for video in self.videos.values()})
        for name in names:
            if name not in known:
                raise InvalidArgument(f"{self.source} has no subset {name!r}; it has {known}")
        videos = {name: one for name, one in self.videos.items() if one.subset in names}
        return GroundTruth(videos, self.classes, self.source)

    def save(self, path: Path) -> None:
        """Write ActivityNet's JSON, which `load` reads back."""
        database = {
            name: {
                "subset": video.subset,
                "duration": video.duration_seconds,
                **({} if video.frames_per_second is None else {"fps": video.frames_per_second}),
                "annotations": [
                    {"segment": [one.start_seconds, one.end_seconds], "label": one.label}
                    for one in video.instances
                ],
            }
            for name, video in self.videos.items()
        }
        document = {"database": database, "activity_list": list(self.classes)}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _video(entry: Any, where: str) -> VideoTruth:
    fields = expect_object(entry, where)
    annotations = expect_list(fields.get("annotations"), f"{where}.annotations")
    rate = fields.get("fps")
    return VideoTruth(
        subset=expect_text(fields.get("subset"), f"{where}.subset"),
        duration_seconds=_positive(fields.get("duration"), f"{where}.duration"),
        frames_per_second=None if rate is None else _positive(rate, f"{where}.fps"),
        instances=tuple(
            _instance(annotation, f"{where}.annotations[{index}]")
            for index, annotation in enumerate(annotations)
        ),
    )


def _instance(entry: Any, where: str) -> Instance:
    fields = expect_object(entry, where)
    start, end = expect_interval(fields.get("segment"), f"{where}.segment")
    return Instance(start, end, expect_text(fields.get("label"), f"{where}.label"))


def _classes(
    document: dict[str, Any], videos: Mapping[str, VideoTruth], source: str
) -> tuple[str, ...]:
    used = {one.label for video in videos.values() for one in video.instances}
    if "activity_list" not in document:
        return tuple(sorted(used))
    where = f"{source}: activity_list"
    listed = [
        expect_text(name, f"{where}[{index}]")
        for index, name in enumerate(expect_list(document["activity_list"], where))
    ]
    for label in sorted(used - set(listed)):
        raise InvalidFile(f"{where} lacks {label!r}, which an annotation has")
    return tuple(dict.fromkeys(listed))


def _positive(value: Any, where: str) -> float:
    number = expect_number(value, where)
    if number <= 0:
        raise InvalidFile(f"{where} is {value!r:.80}, expected a number above 0")
    return number
