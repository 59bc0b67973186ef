"""The numbers of localization: METHOD, Settings. A bundle's manifest carries one of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from backtal.settings import Settings

Threshold = Annotated[float, Field(ge=0, lt=1)]


class LocalizationSettings(Settings):
    """How a CAS becomes segments.

    `released` is the paper's code to the digit, one sequence of T positions for the whole video.
    `windowed` scores half-overlapping windows of T positions, each as a video of its own.
    """

    preset: Literal["windowed", "released"] = "windowed"
    top_k_ratio: float = Field(default=0.125, gt=0, le=1, description="r: k = max(1, int(L * r))")
    class_score_threshold: float = Field(default=0.25, ge=0, le=1)
    cas_thresholds: tuple[Threshold, ...] = Field(default=(0.3, 0.4, 0.5, 0.6, 0.7), min_length=1)
    magnitude_thresholds: tuple[Threshold, ...] = ()
    outer_width: float = Field(default=0.25, ge=0, description="lambda, in lengths of the segment")
    gamma: float = Field(default=0.2, ge=0, description="weight of the video score")
    nms_tiou: float = Field(default=0.5, gt=0, le=1)
    trim_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="released, ActivityNet")
    whole_video_score: float | None = Field(default=None, description="released, ActivityNet")
    minimum_seconds: float = Field(default=0.0, ge=0)
    max_segments: int = Field(default=200, ge=1)
