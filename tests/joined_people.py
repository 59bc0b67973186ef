"""Untrimmed videos of real people, joined from the clips of `weizmann4`.

Three of its four actions are the classes. The background is the fourth, and stills and slow pans
of the same person. Cuts are no answer: background and instances are both joined from several
pieces, so that a cut lies inside them as often as between them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("bend", "jack", "wave2")
BACKGROUND = "wave1"
SUBJECTS = range(6)
SUBJECTS_OF_A_NUMBER = 8
# What happens in the videos of each subject.
SCRIPTS: tuple[tuple[str, ...], ...] = (
    ("bend",),
    ("jack",),
    ("wave2",),
    ("bend", "jack"),
    ("jack", "wave2"),
    ("wave2", "bend"),
)
FRAMES_PER_SECOND = 25
SIDE = 64
WRITTEN_SIDE = 128
BACKGROUND_FRAMES = (75, 175)
ACTION_FRAMES = (75, 150)
PIECE_FRAMES = (35, 80)
LEAST_PIECE_FRAMES = 25

Frames = NDArray[np.uint8]
Span = tuple[float, float]


@dataclass(frozen=True)
class Joined:
    """A video's frames [n, 64, 64, 3], and what is known of it, in seconds.

    instances: (label, span) of each action; background: the stretches between; cuts: where two
    pieces meet, the video's ends among them.
    """

    subject: int
    frames: Frames
    instances: tuple[tuple[str, Span], ...]
    background: tuple[Span, ...]
    cuts: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return len(self.frames) / FRAMES_PER_SECOND


class People:
    """The clips, of a folder ACTION/NUMBER.jpg: strips of 64x64 frames side by side."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._clips: dict[tuple[str, int], Frames] = {}
        for path in sorted(folder.glob("*/*.jpg")):
            strip = np.asarray(Image.open(path).convert("RGB"))
            frames = strip.reshape(SIDE, -1, SIDE, 3).transpose(1, 0, 2, 3)
            subject = int(path.stem) // SUBJECTS_OF_A_NUMBER
            self._clips[path.parent.name, subject] = frames
        self._random = np.random.default_rng(seed)

    def videos(self) -> Iterator[tuple[str, Joined]]:
        """One of every subject and script, by name."""
        for subject in SUBJECTS:
            for number, script in enumerate(SCRIPTS):
                yield f"subject{subject}_{number}", self._join(subject, script)

    def _join(self, subject: int, script: Sequence[str]) -> Joined:
        pieces: list[Frames] = []
        spans: list[tuple[str, Span]] = []
        for label in (*(word for action in script for word in (BACKGROUND, action)), BACKGROUND):
            start = _seconds(pieces)
            if label == BACKGROUND:
                pieces += self._background(subject)
            else:
                pieces += self._action(subject, label)
            spans.append((label, (start, _seconds(pieces))))
        cuts = np.cumsum([0, *map(len, pieces)]) / FRAMES_PER_SECOND
        return Joined(
            subject=subject,
            frames=np.concatenate(pieces),
            instances=tuple(span for span in spans if span[0] != BACKGROUND),
            background=tuple(span for label, span in spans if label == BACKGROUND),
            cuts=tuple(cuts.tolist()),
        )

    def _background(self, subject: int) -> list[Frames]:
        pieces = []
        left = int(self._random.integers(*BACKGROUND_FRAMES))
        while left > 0:
            length = min(left, int(self._random.integers(*PIECE_FRAMES)))
            if left - length < LEAST_PIECE_FRAMES:
                length = left
            pieces.append(self._background_piece(subject, length))
            left -= length
        return pieces

    def _background_piece(self, subject: int, length: int) -> Frames:
        moving = self._clips[BACKGROUND, subject]
        if self._random.random() < 0.5:
            return self._played(moving, length)
        # How a person stands before any of the actions, or in the midst of the fourth.
        action = str(self._random.choice((*CLASSES, BACKGROUND)))
        standing = self._clips[action, subject][:3]
        frames = standing if self._random.random() < 0.5 else moving
        frame = frames[self._random.integers(len(frames))]
        if self._random.random() < 0.5:
            return np.repeat(frame[None], length, axis=0)
        return self._pan(frame, length)

    def _action(self, subject: int, label: str) -> list[Frames]:
        length = int(self._random.integers(*ACTION_FRAMES))
        first = int(length * self._random.uniform(0.35, 0.65))
        clip = self._clips[label, subject]
        return [self._played(clip, first), self._played(clip, length - first)]

    def _played(self, clip: Frames, length: int) -> Frames:
        """From anywhere on, over its end if need be, mirrored or not."""
        start = int(self._random.integers(len(clip)))
        frames = clip[(start + np.arange(length)) % len(clip)]
        return frames[:, :, ::-1] if self._random.random() < 0.5 else frames

    def _pan(self, frame: Frames, length: int) -> Frames:
        """A slow move over a still, of 8 pixels at most."""
        picture = Image.fromarray(frame)
        start, end = self._random.uniform(0, 8, size=(2, 2))
        corners = start + (end - start) * np.linspace(0, 1, length)[:, None]
        boxes = [(x, y, x + SIDE - 8, y + SIDE - 8) for x, y in corners]
        size = (SIDE, SIDE)
        resized = [picture.resize(size, Image.Resampling.BICUBIC, box=box) for box in boxes]
        return np.stack([np.asarray(one) for one in resized])


def _seconds(pieces: Sequence[Frames]) -> float:
    return sum(map(len, pieces)) / FRAMES_PER_SECOND


def write_video(path: Path, frames: Frames) -> None:
    """An MP4 at twice the clips' size."""
    size = (WRITTEN_SIDE, WRITTEN_SIDE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        for frame in frames:
            picture = Image.fromarray(np.ascontiguousarray(frame))
            picture = picture.resize(size, Image.Resampling.BICUBIC)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def ground_truth(videos: dict[str, Joined], held_out: Sequence[int]) -> str:
    """In ActivityNet's format; the videos of the subjects `held_out` are the test split."""
    database = {
        name: {
            "subset": "test" if video.subject in held_out else "training",
            "duration": video.seconds,
            "annotations": [
                {"label": label, "segment": list(span)} for label, span in video.instances
            ],
        }
        for name, video in videos.items()
    }
    return json.dumps({"database": database})


def clicks(videos: dict[str, Joined], held_out: Sequence[int], seed: int) -> str:
    """One click in each stretch of the training split's background, as `video,seconds`."""
    random = np.random.default_rng(seed)
    lines = ["video,seconds"]
    for name, video in videos.items():
        for start, end in video.background if video.subject not in held_out else ():
            lines.append(f"{name},{random.uniform(start + 0.3, end - 0.3):.2f}")
    return "\n".join(lines) + "\n"
