"""From a class activation sequence to segments: windows, normalisation, scoring, NMS."""

from __future__ import annotations

from backtal.localization.choice import Choice
from backtal.localization.localizer import localize
from backtal.localization.scores import video_scores
from backtal.localization.settings import Calibration, LocalizationSettings
from backtal.localization.windowed import WindowedLocalizer, num_windows

__all__ = [
    "Calibration",
    "Choice",
    "LocalizationSettings",
    "WindowedLocalizer",
    "localize",
    "num_windows",
    "video_scores",
]
