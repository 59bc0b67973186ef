"""What a caller may narrow down, and the last steps from proposals to an answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from backtal.errors import InvalidArgument
from backtal.localization.settings import LocalizationSettings
from backtal.segments import Segment


@dataclass(frozen=True)
class Choice:
    """What a request asks of its answer; None leaves it to the bundle.

    Attributes:
        score_threshold: the lowest score that is answered, after calibration.
        max_segments: how many at most, the surest first.
        classes: only these, by name.
        nms: the tIoU above which a segment suppresses a less sure one of its class.
    """

    score_threshold: float | None = None
    max_segments: int | None = None
    classes: tuple[str, ...] | None = None
    nms: float | None = None

    def check(self, known_classes: Sequence[str]) -> None:
        """Raise InvalidArgument for a value out of its range or a class that is not known."""
        if self.score_threshold is not None and self.score_threshold != self.score_threshold:
            raise InvalidArgument("score_threshold is not a number")
        if self.max_segments is not None and self.max_segments < 1:
            raise InvalidArgument(f"max_segments is {self.max_segments}; it must be at least 1")
        if self.nms is not None and not 0 < self.nms <= 1:
            raise InvalidArgument(f"nms is {self.nms}; it must be a tIoU in (0, 1]")
        if self.classes is not None:
            self._check_classes(self.classes, known_classes)

    def _check_classes(self, asked: tuple[str, ...], known: Sequence[str]) -> None:
        if not asked:
            raise InvalidArgument("classes is an empty list; leave it out to get all classes")
        for name in asked:
            if name not in known:
                raise InvalidArgument(f"unknown class {name!r}{nearest(name, known)}")

    def wants(self, label: str) -> bool:
        """Whether segments of this class are asked for."""
        return self.classes is None or label in self.classes

    def settle(self, settings: LocalizationSettings) -> LocalizationSettings:
        """The bundle's settings with this request's own nms and max_segments in their place."""
        changes: dict[str, float | int] = {}
        if self.nms is not None:
            changes["nms_tiou"] = self.nms
        if self.max_segments is not None:
            changes["max_segments"] = self.max_segments
        return settings.model_copy(update=changes)

    def answer(
        self,
        segments: Iterable[Segment],
        settings: LocalizationSettings,
        duration_seconds: float,
    ) -> tuple[Segment, ...]:
        """Cut to the video, calibrate, leave out what was not asked for; the surest by score."""
        return surest(self.narrow(segments, settings, duration_seconds), settings.max_segments)

    def narrow(
        self,
        segments: Iterable[Segment],
        settings: LocalizationSettings,
        duration_seconds: float,
    ) -> list[Segment]:
        """Cut to the video, calibrate, leave out what was not asked for."""
        return [
            cut
            for segment in segments
            if (cut := _cut(_calibrated(segment, settings), duration_seconds)) is not None
            and cut.seconds >= settings.minimum_seconds
            and (self.score_threshold is None or cut.score >= self.score_threshold)
            and self.wants(cut.label)
        ]


def surest(segments: Iterable[Segment], max_segments: int) -> tuple[Segment, ...]:
    """At most `max_segments` of them, by falling score, then by time."""
    ordered = sorted(
        segments, key=lambda one: (-one.score, one.start_seconds, one.end_seconds, one.label)
    )
    return tuple(ordered[:max_segments])


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for an unknown name: the nearest known one, or how many there are."""
    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    if near:
        return f"; did you mean {folded[near[0]]!r}?"
    listed = ", ".join(repr(one) for one in list(known)[:5])
    return f"; there are {len(known)}: {listed}{', ...' if len(known) > 5 else ''}"


def _calibrated(segment: Segment, settings: LocalizationSettings) -> Segment:
    if settings.calibration is None:
        return segment
    return replace(segment, score=settings.calibration.probability(segment.score))


def _cut(segment: Segment, duration_seconds: float) -> Segment | None:
    start = max(0.0, segment.start_seconds)
    end = min(duration_seconds, segment.end_seconds)
    if end <= start:
        return None
    return replace(segment, start_seconds=start, end_seconds=end)
