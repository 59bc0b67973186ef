"""What the `calibrated` preset has a setting for, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from backtal.localization import Calibration, LocalizationSettings, localize
from backtal.segments import Segment, overlap_ratio
from tests.unit.bundles import describe

Rows = NDArray[np.float32]

cas_rows = arrays.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(2, 50)),
    elements=st.floats(-3, 3, width=16).map(float),
)


def _found(cas: Rows, magnitude: Rows | None = None, **settings: Any) -> list[Segment]:
    settings = {"kind": "logits", **settings}
    bundle = describe(cas.shape[0], magnitude=magnitude is not None, **settings)
    return list(localize(cas, magnitude, description=bundle, duration_seconds=float(cas.shape[1])))


def _spans(found: list[Segment]) -> NDArray[np.float64]:
    return np.array([[one.start_seconds, one.end_seconds] for one in found]).reshape(-1, 2)


@given(cas_rows, st.sampled_from(["clamped", "thresholded"]))
def test_a_contrast_on_values_from_0_to_1_lies_between_minus_1_and_1(
    cas: Rows, contrast: str
) -> None:
    settings = {"class_score_threshold": 0.0, "gamma": 0.0, "window_positions": 100}
    for one in _found(cas, contrast=contrast, **settings):
        assert -1 <= one.score <= 1 + 1e-6


def test_the_clamp_keeps_a_very_negative_neighbour_from_deciding() -> None:
    cas = np.array(
        [[0.0, -50, -50, 0.5, 0.5, 0.5, 0.5, -50, -50, 0, 0, 0, 1, 1, 1, 1, 0, 0]], np.float32
    )
    settings = {
        "gamma": 0.0,
        "cas_thresholds": (0.4,),
        "outer_width": 0.5,
        "window_positions": 20,
    }
    first = {
        contrast: round(_found(cas, contrast=contrast, **settings)[0].start_seconds)
        for contrast in ("normalised", "clamped")
    }
    assert first == {"normalised": 3, "clamped": 12}


def test_on_the_thresholded_sequence_what_is_outside_does_not_count() -> None:
    cas = np.full((1, 30), 0.45, dtype=np.float32)
    cas[0, 10:20] = 0.9
    settings = {"kind": "probability", "gamma": 0.0, "cas_thresholds": (0.5,), "outer_width": 0.4}
    (honest,) = _found(cas, **settings, window_positions=30)
    (released,) = _found(cas, contrast="thresholded", **settings, window_positions=30)
    assert released.score > honest.score + 0.4


def test_without_one_scale_the_magnitudes_proposals_are_scored_on_another() -> None:
    cas = np.full((1, 40), 0.2, dtype=np.float32)
    cas[0, 14:22] = 0.9
    magnitude = np.zeros(40, dtype=np.float32)
    magnitude[10:26] = 1.0
    settings = {
        "kind": "probability",
        "window_positions": 40,
        "contrast": "thresholded",
        "cas_thresholds": (0.5,),
        "magnitude_thresholds": (0.5,),
        "nms_tiou": 0.9,
        "nms_sigma": None,
    }
    one = _found(cas, magnitude, **settings)
    two = _found(cas, magnitude, **settings, one_scale=False)
    assert [round(found.start_seconds) for found in one] == [14, 10]
    # The CAS's own proposal keeps its score; the magnitude's loses what lies around it.
    assert two[0] == one[0]
    assert one[1].score - two[1].score == pytest.approx(0.2 / 2 + 0.2 / 2 - 0.1, abs=0.06)


@given(cas_rows, st.sampled_from([0.1, 0.5]))
def test_soft_nms_answers_the_same_places_or_more_with_no_higher_scores(
    cas: Rows, sigma: float
) -> None:
    settings = {"class_score_threshold": 0.0, "window_positions": 16}
    hard = _found(cas, **settings, nms_sigma=None)
    soft = _found(cas, **settings, nms_sigma=sigma)
    for label in ("c0", "c1"):
        surest = [next((f for f in found if f.label == label), None) for found in (hard, soft)]
        assert surest[0] == surest[1]
        spans = _spans([one for one in soft if one.label == label])
        overlaps = overlap_ratio(spans, spans)[np.triu_indices(len(spans), 1)]
        assert (overlaps <= 0.5).all()


def test_the_added_second_makes_short_neighbours_one() -> None:
    cas = np.zeros((1, 40), dtype=np.float32)
    cas[0, 10], cas[0, 12] = 0.9, 0.8
    settings = {"kind": "probability", "cas_thresholds": (0.5,), "nms_tiou": 0.1}
    assert len(_found(cas, **settings)) == 2
    assert len(_found(cas, **settings, nms_added_seconds=2.0)) == 1


def test_the_whole_video_may_be_one_sequence() -> None:
    cas = np.full((1, 64), -1.0, dtype=np.float32)
    cas[0, 4:6], cas[0, 50:52] = 1.0, 100.0
    windows = _found(cas, window_positions=16)
    whole = _found(cas, window_positions=16, windows="whole")
    assert min(one.start_seconds for one in windows) < 6
    assert min(one.start_seconds for one in whole) > 40
    assert whole == _found(cas, window_positions=64)


class TestArgmaxFallback:
    """Only where nothing passes in the whole video, and only if asked."""

    quiet: Rows = np.full((2, 60), 0.01, dtype=np.float32)
    quiet[1, 30:36] = 0.1

    def _found(self, cas: Rows, **settings: Any) -> list[Segment]:
        return _found(cas, kind="probability", cas_thresholds=(0.05,), **settings)

    def test_no_action_is_an_answer(self) -> None:
        assert self._found(self.quiet) == []

    def test_the_surest_class_is_taken(self) -> None:
        (found,) = self._found(self.quiet, argmax_fallback=True)
        assert found.label == "c1"
        assert (found.start_seconds, found.end_seconds) == pytest.approx((30, 36), abs=0.6)

    def test_never_for_a_window_of_a_video_in_which_a_class_passes(self) -> None:
        cas = self.quiet.copy()
        cas[0, 2:6] = 0.9
        assert self._found(cas, argmax_fallback=True) == self._found(cas)

    def test_a_class_that_is_not_asked_for_still_passes(self) -> None:
        cas = self.quiet.copy()
        cas[0, 2:6] = 0.9
        bundle = describe(2, cas_thresholds=(0.05,), argmax_fallback=True)
        for wanted, quiet_or_loud in ((["c1"], cas), (["c0"], self.quiet)):
            assert (
                localize(quiet_or_loud, description=bundle, duration_seconds=60.0, classes=wanted)
                == ()
            )


class TestCalibration:
    """The map from score to probability."""

    def test_it_rises_and_stays_within_0_and_1(self) -> None:
        one = Calibration(slope=3.0, intercept=-1.5)
        values = [one.probability(score) for score in (-1e6, -1.0, 0.0, 0.5, 1.0, 1e6)]
        assert values == sorted(values)
        assert (values[0], values[3], values[-1]) == (0, 0.5, 1)

    def test_the_answer_has_probabilities_in_the_same_order(self) -> None:
        cas = np.zeros((2, 40), dtype=np.float32)
        cas[0, 5:10], cas[0, 20:26], cas[1, 30:34] = 0.9, 0.6, 0.8
        plain = _found(cas, kind="probability")
        calibration = Calibration(slope=2.0, intercept=-1.0)
        mapped = _found(cas, kind="probability", calibration=calibration)
        assert [(one.start_seconds, one.label) for one in mapped] == [
            (one.start_seconds, one.label) for one in plain
        ]
        assert [one.score for one in mapped] == [
            calibration.probability(one.score) for one in plain
        ]

    def test_a_score_threshold_is_a_probability_then(self) -> None:
        cas = np.zeros((1, 40), dtype=np.float32)
        cas[0, 5:10], cas[0, 20:26] = 0.9, 0.5
        bundle = describe(1, calibration=Calibration(slope=10.0, intercept=-8.0))
        every = localize(cas, description=bundle, duration_seconds=40.0)
        sure = localize(cas, description=bundle, duration_seconds=40.0, score_threshold=0.5)
        assert (len(every), len(sure)) == (2, 1)

    def test_a_map_that_falls_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="slope"):
            Calibration(slope=0.0, intercept=0.0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"preset": "released", "nms_sigma": 0.5}, "nms_sigma"),
        ({"preset": "released", "windows": "whole"}, "windows"),
        ({"preset": "calibrated", "trim_fraction": 0.02}, "trim_fraction"),
    ],
)
def test_a_setting_of_the_other_preset_is_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} does nothing with the preset"):
        LocalizationSettings(**settings)
