"""Clicks: moments that a person marked as background.

Two kinds of file are read, told apart by their first line:

- the THUMOS14 click annotations,
  ``URLID,URL,TagID,Tag,Start,End,Time,State``: Start and End are seconds, as a rule the same
  ones. A row where they differ marks a short stretch. TagID is the background's index.
- ``video,seconds``: one click a row.

Either may begin with a UTF-8 byte-order mark, as the published ones do.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidArgument, InvalidFile
from backtal.fields import read_bytes

THUMOS_COLUMNS = ("URLID", "URL", "TagID", "Tag", "Start", "End", "Time", "State")
PLAIN_COLUMNS = ("video", "seconds")
BACKGROUND_TAG = "background_background"


@dataclass(frozen=True)
class Click:
    """A moment of background, or a stretch of it where the end differs from the start."""

    start_seconds: float
    end_seconds: float

    @classmethod
    def at(cls, seconds: float) -> Click:
        """A click on one moment."""
        return cls(seconds, seconds)


@dataclass(frozen=True)
class Clicks:
    """The clicks of each video, in the order of their time; a video may have none."""

    videos: Mapping[str, tuple[Click, ...]]
    source: str = "clicks"

    @classmethod
    def load(cls, path: Path) -> Clicks:
        """Read a file of clicks. Raises NotFound, or InvalidFile naming line and value."""
        return cls.parse(read_bytes(path), str(path))

    @classmethod
    def parse(cls, content: bytes, source: str = "clicks") -> Clicks:
        """Read the bytes of such a file. Raises InvalidFile naming line and value."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidFile(f"{source} is no UTF-8 text: {error}") from None
        videos: dict[str, list[Click]] = {}
        for name, click in _rows(text, source):
            videos.setdefault(name, []).append(click)
        return cls({name: tuple(_sorted(clicks)) for name, clicks in videos.items()}, source)

    @property
    def num_clicks(self) -> int:
        """The clicks of all videos."""
        return sum(len(clicks) for clicks in self.videos.values())

    def of(self, video: str) -> tuple[Click, ...]:
        """The clicks of a video, none for one that nobody clicked in."""
        return self.videos.get(video, ())

    def positions(
        self, video: str, position_seconds: float, num_positions: int
    ) -> NDArray[np.int64]:
        """The positions of a video's grid that are clicked, ascending, each once.

        A moment clicks the position that it falls into, a stretch all positions that it touches.
        Clicks beyond the grid's end are left out, save for the rest of a position there that
        rounding cut off: it belongs to the last one. Raises InvalidArgument for an empty grid.
        """
        if position_seconds <= 0 or num_positions < 1:
            raise InvalidArgument(f"no grid of {num_positions} positions of {position_seconds} s")
        clicked: set[int] = set()
        for click in self.of(video):
            beyond = num_positions + 1.0
            first = int(min(click.start_seconds / position_seconds, beyond))
            last = int(min(click.end_seconds / position_seconds, beyond))
            if first <= num_positions:
                first, last = min(first, num_positions - 1), min(last, num_positions - 1)
                clicked.update(range(first, last + 1))
        return np.array(sorted(clicked), dtype=np.int64)

    def save(self, path: Path, background_index: int) -> None:
        """Write the THUMOS14 form, byte-order mark included."""
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(THUMOS_COLUMNS)
            for name, clicks in self.videos.items():
                for one in clicks:
                    times = (f"{one.start_seconds:.10g}", f"{one.end_seconds:.10g}")
                    tag = (background_index, BACKGROUND_TAG)
                    writer.writerow((name, f"{name}.mp4", *tag, *times, 1, 1))


def _sorted(clicks: list[Click]) -> list[Click]:
    return sorted(clicks, key=lambda click: (click.start_seconds, click.end_seconds))


def _rows(text: str, source: str) -> Iterator[tuple[str, Click]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = tuple(next(reader, ()))
        if columns not in (THUMOS_COLUMNS, PLAIN_COLUMNS):
            raise InvalidFile(
                f"{source}, line 1: {','.join(columns)!r:.100}, expected "
                f"{','.join(THUMOS_COLUMNS)!r} or {','.join(PLAIN_COLUMNS)!r}"
            )
        for values in reader:
            if values:
                yield _click(values, columns, f"{source}, line {reader.line_num}")
    except csv.Error as error:
        raise InvalidFile(f"{source}, line {reader.line_num}: {error}") from None


def _click(values: Sequence[str], columns: Sequence[str], where: str) -> tuple[str, Click]:
    if len(values) != len(columns):
        raise InvalidFile(f"{where}: {len(values)} columns, expected {len(columns)}")
    row = dict(zip(columns, values, strict=True))
    if columns == PLAIN_COLUMNS:
        return _name(row, "video", where), Click.at(_seconds(row, "seconds", where))
    if row["Tag"] != BACKGROUND_TAG:
        raise InvalidFile(f"{where}: Tag is {row['Tag']!r:.80}, expected {BACKGROUND_TAG!r}")
    start, end = _seconds(row, "Start", where), _seconds(row, "End", where)
    if end < start:
        raise InvalidFile(f"{where}: End {row['End']} is before Start {row['Start']}")
    return _name(row, "URLID", where), Click(start, end)


def _name(row: Mapping[str, str], column: str, where: str) -> str:
    if not row[column].strip():
        raise InvalidFile(f"{where}: {column} is empty")
    return row[column]


def _seconds(row: Mapping[str, str], column: str, where: str) -> float:
    try:
        seconds = float(row[column])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidFile(f"{where}: {column} is {row[column]!r:.80}, expected seconds from 0 on")
    return seconds
