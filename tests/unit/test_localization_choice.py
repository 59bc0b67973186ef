from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtal.errors import InvalidArgument
from backtal.localization import WindowedLocalizer, localize
from backtal.manifest import BundleDescription
from tests.unit.bundles import describe

PRESETS = pytest.mark.parametrize("preset", ["calibrated", "released"])


def _cas() -> Any:
    cas = np.zeros((2, 40), dtype=np.float32)
    cas[0, 5:10], cas[0, 20:26], cas[1, 30:34] = 0.9, 0.6, 0.8
    return cas


def _localize(preset: str, **choice: Any) -> Any:
    return localize(_cas(), description=describe(preset=preset), duration_seconds=40.0, **choice)


@PRESETS
def test_by_falling_score(preset: str) -> None:
    found = _localize(preset)
    assert len(found) >= 3
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@PRESETS
def test_max_segments_keeps_the_surest(preset: str) -> None:
    assert _localize(preset, max_segments=2) == _localize(preset)[:2]


@PRESETS
def test_score_threshold(preset: str) -> None:
    every = _localize(preset)
    limit = every[1].score
    chosen = _localize(preset, score_threshold=limit)
    assert chosen == tuple(one for one in every if one.score >= limit)
    assert 0 < len(chosen) < len(every)


@PRESETS
def test_classes(preset: str) -> None:
    every = _localize(preset)
    assert _localize(preset, classes=["c1"]) == tuple(one for one in every if one.label == "c1")


@PRESETS
def test_a_lower_nms_leaves_fewer(preset: str) -> None:
    assert len(_localize(preset, nms=0.01)) <= len(_localize(preset, nms=1.0))


@PRESETS
@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"classes": ["c11"]}, "unknown class 'c11'; did you mean 'c1'"),
        ({"classes": ["swimming"]}, "unknown class 'swimming'; there are 2: 'c0', 'c1'"),
        ({"classes": []}, "empty list"),
        ({"max_segments": 0}, "max_segments is 0"),
        ({"nms": 0.0}, r"nms is 0.0; it must be a tIoU in \(0, 1\]"),
        ({"nms": 1.5}, "nms is 1.5"),
        ({"nms": float("nan")}, "nms is nan"),
        ({"score_threshold": float("nan")}, "score_threshold"),
    ],
)
def test_a_choice_out_of_its_range(preset: str, choice: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        _localize(preset, **choice)


def test_the_nearest_class_is_found_whatever_the_case() -> None:
    bundle = describe(1).model_copy(update={"classes": ("Clean and Jerk",)})
    with pytest.raises(InvalidArgument, match="did you mean 'Clean and Jerk'"):
        localize(_cas()[:1], description=bundle, duration_seconds=40, classes=["clean and jerk"])


@PRESETS
@pytest.mark.parametrize(
    ("cas", "duration", "message"),
    [
        (np.zeros((3, 4)), 4.0, r"the CAS is \[3, 4\], expected \[2, positions\]"),
        (np.zeros(4), 4.0, r"the CAS is \[4\]"),
        (np.zeros((2, 0)), 4.0, "no positions"),
        (np.full((2, 4), np.nan), 4.0, "not finite"),
        (np.full((2, 4), np.inf), 4.0, "not finite"),
        (np.zeros((2, 4)), 0.0, "duration is 0.0 s"),
        (np.zeros((2, 4)), float("nan"), "duration is nan"),
        (np.zeros((2, 4)), float("inf"), "duration is inf"),
    ],
)
def test_bad_input(preset: str, cas: Any, duration: float, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        localize(cas, description=describe(preset=preset), duration_seconds=duration)


def _with_magnitude(preset: str) -> BundleDescription:
    return describe(preset=preset, magnitude=True, magnitude_thresholds=(0.5,))


@PRESETS
def test_a_magnitude_that_is_wanted_must_be_there(preset: str) -> None:
    with pytest.raises(InvalidArgument, match="no magnitude"):
        localize(_cas(), description=_with_magnitude(preset), duration_seconds=40.0)
    with pytest.raises(InvalidArgument, match=r"magnitude is \[3\], expected \[40\]"):
        localize(_cas(), np.zeros(3), description=_with_magnitude(preset), duration_seconds=40.0)


def test_finishing_without_a_position() -> None:
    with pytest.raises(InvalidArgument, match="no positions"):
        WindowedLocalizer(describe()).finish(4.0)
