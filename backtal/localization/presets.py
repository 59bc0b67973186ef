"""The published settings of the three data sets: METHOD, Settings."""

from __future__ import annotations

import numpy as np

from backtal.localization.settings import LocalizationSettings


def _steps(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(np.arange(start, stop, step).tolist())


THUMOS14 = LocalizationSettings(
    preset="released",
    top_k_ratio=0.125,
    class_score_threshold=0.25,
    cas_thresholds=_steps(0, 0.25, 0.025),
    magnitude_thresholds=_steps(0.3, 0.8, 0.075),
    outer_width=0.25,
    gamma=0.2,
    nms_tiou=0.55,
    max_segments=100_000,
)
ACTIVITYNET_12 = LocalizationSettings(
    preset="released",
    top_k_ratio=0.6,
    class_score_threshold=0.1,
    cas_thresholds=_steps(0, 0.15, 0.025),
    outer_width=20,
    gamma=0.6,
    nms_tiou=0.7,
    trim_fraction=0.02,
    whole_video_score=0.6,
    max_segments=100_000,
)
HACS = LocalizationSettings(
    preset="released",
    top_k_ratio=0.6,
    class_score_threshold=0.075,
    cas_thresholds=_steps(0, 0.2, 0.025),
    outer_width=200,
    gamma=0.6,
    nms_tiou=0.71,
    trim_fraction=0.02,
    whole_video_score=0.6,
    max_segments=100_000,
)

# By the names that the data sets go by in the released code's configuration.
PRESETS = {"THUMOS14": THUMOS14, "ActivityNet1.2": ACTIVITYNET_12, "HACS": HACS}

# The tIoU thresholds that each data set's mAP is reported at.
TIOUS: dict[str, tuple[float, ...]] = {
    "THUMOS14": tuple(tenth / 10 for tenth in range(1, 10)),
    "ActivityNet1.2": tuple(hundredth / 100 for hundredth in range(50, 100, 5)),
    "HACS": tuple(hundredth / 100 for hundredth in range(50, 100, 5)),
}
