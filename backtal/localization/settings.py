"""The numbers of localization: METHOD, Settings. A bundle's manifest carries one of these."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from backtal.settings import Settings

Threshold = Annotated[float, Field(ge=0, lt=1)]

# What a proposal's inside is held against its outside on: see `scoring`.
ContrastOn = Literal["clamped", "normalised", "thresholded"]

_OF_CALIBRATED = (
    "windows",
    "companion_ratio",
    "contrast",
    "one_scale",
    "nms_sigma",
    "nms_added_seconds",
    "argmax_fallback",
)
_OF_RELEASED = ("trim_fraction", "whole_video_score")


class Calibration(Settings):
    """From a score to the chance that the segment is right: ``sigmoid(slope * s + intercept)``.

    It rises with the score, so it changes no order. Right means that the segment is matched to an
    instance at `tiou` by the evaluation's protocol; a duplicate is wrong.
    """

    slope: float = Field(gt=0)
    intercept: float
    tiou: float = Field(default=0.5, gt=0, le=1)
    num_detections: int = Field(default=0, ge=0, description="what it was fitted to")

    def probability(self, score: float) -> float:
        """The chance that a segment of this score is right, from 0 to 1."""
        logit = self.slope * score + self.intercept
        if logit >= 0:
            return 1 / (1 + math.exp(-logit))
        power = math.exp(logit)
        return power / (1 + power)


class LocalizationSettings(Settings):
    """How a CAS becomes segments.

    `released` is the paper's code to the digit, one sequence of T positions for the whole video.
    `calibrated` scores half-overlapping windows of T positions, each as a video of its own. What
    sets it apart from the released code is a setting each, so that a table can take one away at
    a time.
    """

    preset: Literal["calibrated", "released"] = "calibrated"
    top_k_ratio: float = Field(default=0.125, gt=0, le=1, description="r: k = max(1, int(L * r))")
    class_score_threshold: float = Field(default=0.25, ge=0, le=1)
    cas_thresholds: tuple[Threshold, ...] = Field(default=(0.3, 0.4, 0.5, 0.6, 0.7), min_length=1)
    magnitude_thresholds: tuple[Threshold, ...] = ()
    outer_width: float = Field(default=0.25, ge=0, description="lambda, in lengths of the segment")
    gamma: float = Field(default=0.2, ge=0, description="weight of the video score")
    nms_tiou: float = Field(default=0.5, gt=0, le=1)
    minimum_seconds: float = Field(default=0.0, ge=0)
    max_segments: int = Field(default=200, ge=1)
    calibration: Calibration | None = Field(default=None, description="None: scores as they are")

    windows: Literal["overlapping", "whole"] = Field(
        default="overlapping", description="calibrated: or the whole video as one sequence"
    )
    companion_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        exclude_if=lambda ratio: ratio is None,
        description="calibrated: where a class passes, others pass whose top-k mean is this part "
        "of the way from the least class's to the surest one's; None: no others",
    )
    contrast: ContrastOn = Field(
        default="clamped",
        description="calibrated: the normalised CAS with values below 0, none, or those below the "
        "proposal's own threshold (as released) counted as 0",
    )
    one_scale: bool = Field(
        default=True,
        description="calibrated: proposals of the magnitude are scored as those of the CAS; "
        "else on the normalised CAS, as released",
    )
    nms_sigma: float | None = Field(
        default=0.3,
        gt=0,
        description="calibrated: lower a score by exp(-tIoU^2 / sigma) for each surer segment of "
        "its class; None does not",
    )
    nms_added_seconds: float = Field(
        default=0.0, ge=0, description="calibrated: by which NMS lengthens; released: always 1"
    )
    argmax_fallback: bool = Field(
        default=False,
        description="calibrated: where no class passes in a whole video, take the surest",
    )

    trim_fraction: float = Field(default=0.0, ge=0, lt=0.5, description="released, ActivityNet")
    whole_video_score: float | None = Field(default=None, description="released, ActivityNet")

    @model_validator(mode="after")
    def _of_one_preset(self) -> LocalizationSettings:
        others = _OF_RELEASED if self.preset == "calibrated" else _OF_CALIBRATED
        for name in others:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} does nothing with the preset {self.preset!r}")
        return self
