"""The one call from a CAS to segments, whatever the bundle's preset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtal.errors import InvalidArgument
from backtal.localization.choice import Choice
from backtal.localization.inputs import check_duration, checked_rows
from backtal.localization.released import released_segments
from backtal.localization.scores import Array, video_scores
from backtal.localization.windowed import WindowedLocalizer
from backtal.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtal.manifest import BundleDescription


def localize(
    cas: Array,
    magnitude: Array | None = None,
    *,
    description: BundleDescription,
    duration_seconds: float,
    num_frames: int | None = None,
    score_threshold: float | None = None,
    max_segments: int | None = None,
    classes: Sequence[str] | None = None,
    nms: float | None = None,
) -> tuple[Segment, ...]:
    """The segments of one video by falling score; none where no class passes its threshold.

    `cas` [C(+1), L] is raw, `magnitude` [L] the feature magnitude where the bundle has one. With
    the `calibrated` preset L is the video's length on the bundle's grid; with `released` the whole
    video is L positions and `num_frames` (by default the clip plan's ticks) the samples that the
    thresholds are applied to. The last four narrow the answer down: see `Choice`.

    Raises InvalidArgument for a choice out of its range, an unknown class, a CAS of another
    shape or with values that are not finite.
    """
    choice = Choice(
        score_threshold=score_threshold,
        max_segments=max_segments,
        classes=None if classes is None else tuple(classes),
        nms=nms,
    )
    if description.localization.preset == "calibrated":
        localizer = WindowedLocalizer(description, choice)
        localizer.push(cas, magnitude)
        return localizer.finish(duration_seconds)
    choice.check(description.classes)
    check_duration(duration_seconds)
    settings = choice.settle(description.localization)
    needs_magnitude = bool(settings.magnitude_thresholds)
    rows = checked_rows(
        cas, magnitude, channels=description.cas_channels, needs_magnitude=needs_magnitude
    )
    if not rows.shape[1]:
        raise InvalidArgument("the CAS has no positions")
    cas = rows[: description.cas_channels]
    ticks = duration_seconds * description.clip_plan.frames_per_second
    segments = released_segments(
        cas,
        video_scores(cas, settings.top_k_ratio, kind=description.cas.kind),
        rows[-1] if needs_magnitude else None,
        classes=description.classes,
        settings=settings,
        kind=description.cas.kind,
        num_frames=num_frames or max(1, round(ticks)),
        duration_seconds=duration_seconds,
    )
    return choice.answer(segments, settings, duration_seconds)
