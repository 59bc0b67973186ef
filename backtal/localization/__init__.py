"""From a class activation sequence to segments: windows, normalisation, scoring, NMS."""

from __future__ import annotations

from backtal.localization.choice import Choice
from backtal.localization.localizer import localize
from backtal.localization.scores import video_scores
from backtal.localization.settings import Calibration, LocalizationSettings
from backtal.localization.windowed import WindowedLocalizer

__all__ = [
    "Calibration",
    "Choice",
    "LocalizationSettings",
    "WindowedLocalizer",
    "localize",
    "video_scores",
]
