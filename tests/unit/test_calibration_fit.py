"""The map from scores to probabilities, fitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.evaluation import reliability
from backtal.segments import Segment
from backtal_training.calibration import fit_calibration


def _case(scores: list[float], right: list[bool]) -> tuple[GroundTruth, dict[str, list[Segment]]]:
    """A video with an instance for each detection that is right."""
    instances = tuple(
        Instance(10.0 * i, 10.0 * i + 5, "run") for i, is_right in enumerate(right) if is_right
    )
    truth = GroundTruth({"a": VideoTruth("test", 1e6, None, instances)}, ("run",))
    return truth, {
        "a": [Segment(10.0 * i, 10.0 * i + 5, "run", score) for i, score in enumerate(scores)]
    }


def test_scores_that_were_drawn_from_a_map_give_it_back() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(-0.5, 1.5, 6000)
    right = random.random(6000) < 1 / (1 + np.exp(-(4 * scores - 3)))
    fitted = fit_calibration(*_case(scores.tolist(), right.tolist()))
    assert fitted is not None
    assert (fitted.slope, fitted.intercept) == (
        pytest.approx(4, abs=0.3),
        pytest.approx(-3, abs=0.3),
    )
    assert (fitted.tiou, fitted.num_detections) == (0.5, 6000)


def test_calibrated_scores_are_as_often_right_as_they_say() -> None:
    random = np.random.default_rng(1)
    scores = random.uniform(0, 1, 3000)
    right = random.random(3000) < 0.1 + 0.5 * scores**2
    truth, found = _case(scores.tolist(), right.tolist())
    fitted = fit_calibration(truth, found)
    assert fitted is not None
    mapped = {
        "a": [
            Segment(one.start_seconds, one.end_seconds, "run", fitted.probability(one.score))
            for one in found["a"]
        ]
    }
    assert reliability(truth, found).expected_calibration_error > 0.1
    assert reliability(truth, mapped).expected_calibration_error < 0.05


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.booleans()), min_size=10, max_size=40),
    st.floats(0.5, 20),
    st.floats(-5, 5),
)
@settings(deadline=None)
def test_stretched_scores_give_the_same_chances(
    cases: list[tuple[float, bool]], factor: float, offset: float
) -> None:
    scores = [round(score, 3) for score, _ in cases]
    right = [is_right for _, is_right in cases]
    plain = fit_calibration(*_case(scores, right))
    moved = fit_calibration(*_case([factor * score + offset for score in scores], right))
    if plain is None or moved is None or min(plain.slope, moved.slope * factor) < 1e-3:
        return  # The slope is 0 but for rounding: either may say so.
    for score in scores:
        assert plain.probability(score) == pytest.approx(
            moved.probability(factor * score + offset), abs=1e-4
        )


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ([], []),
        ([0.1 * i for i in range(5)], [True, False, True, False, True]),
        ([0.1 * i for i in range(20)], [True] * 20),
        ([0.1 * i for i in range(20)], [False] * 20),
        ([0.1 * i for i in range(20)], [i < 10 for i in range(20)]),
        ([0.5] * 20, [i < 10 for i in range(20)]),
    ],
)
def test_scores_that_tell_nothing_are_left_as_they_are(
    scores: list[float], right: list[bool]
) -> None:
    assert fit_calibration(*_case(scores, right)) is None


def test_scores_that_separate_right_from_wrong_are_no_step() -> None:
    scores = [0.0] * 20 + [1.0] * 20
    fitted = fit_calibration(*_case(scores, [score > 0.5 for score in scores]))
    assert fitted is not None
    assert 0.9 < fitted.probability(1.0) < 1
    assert 0 < fitted.probability(0.0) < 0.1
