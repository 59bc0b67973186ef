from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backtal.localization import video_scores
from backtal.localization.proposals import contrast, crossings
from backtal.localization.scores import clipped_range, companions, integral, runs_above

rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 30)),
    elements=st.floats(-8, 8, width=32),
)

unit = st.floats(0, 1)


def test_video_scores_are_the_softmax_of_top_k_means() -> None:
    cas = np.array([[0.0, 4, 1, 3], [2, 2, 2, 2]])
    means = np.array([3.5, 2.0])
    expected = np.exp(means) / np.exp(means).sum()
    assert video_scores(cas, 0.5) == pytest.approx(expected)
    assert video_scores(cas, 0.5, kind="probability") == pytest.approx(means)


def test_at_least_one_position_counts() -> None:
    assert video_scores(np.array([[0.1, 0.9, 0.2]]), 0.01, kind="probability") == [0.9]


@given(rows, st.floats(0.01, 1))
def test_video_scores_of_logits_sum_to_one(cas: np.ndarray, ratio: float) -> None:
    scores = video_scores(cas, ratio)
    assert scores.sum() == pytest.approx(1)
    assert video_scores(cas[:, ::-1], ratio) == pytest.approx(scores)


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=unit),
    st.floats(0.001, 1),
)
def test_however_short_the_top_k_are_the_largest_and_one_at_least(
    cas: np.ndarray, ratio: float
) -> None:
    count = max(1, int(cas.shape[1] * ratio))
    expected = [sum(sorted(row, reverse=True)[:count]) / count for row in cas.tolist()]
    assert video_scores(cas, ratio, kind="probability") == pytest.approx(expected)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8), st.integers(-5, 5))
def test_companions_are_the_surest_and_more_of_them_at_a_lower_ratio(
    whole: list[int], shift: int
) -> None:
    means, num_classes = np.array(whole, np.float64), len(whole) - 1
    near = companions(means, num_classes, 0.5)
    np.testing.assert_array_equal(companions(means + shift, num_classes, 0.5), near)
    assert near[means[:-1].argmax()]
    assert (near <= companions(means, num_classes, 0.25)).all()
    assert (means[:-1][near] >= (means.min() + means[:-1].max()) / 2).all()


def test_companions_of_known_means() -> None:
    means = np.array([4.0, 2.5, 1.0, 0.0, -1.0])
    assert companions(means, 4, 0.5).tolist() == [True, True, False, False]
    assert companions(means, 4, 0.4).tolist() == [True, True, True, False]
    assert companions(means, 4, 0.8).tolist() == [True, False, False, False]


def test_range_is_clipped_at_0() -> None:
    low, delta = clipped_range(np.array([[-2.0, 4], [1, 3], [-3, -1], [5, 5]]))
    assert low.tolist() == [0, 1, 0, 5]
    assert delta.tolist() == [4, 2, 1, 1]


@given(rows, st.floats(-8, 8, width=32))
def test_runs_are_exactly_what_is_above(values: np.ndarray, level: float) -> None:
    row, first, end = runs_above(values, np.full(len(values), level, dtype=np.float32))
    covered = np.zeros(values.shape, dtype=bool)
    for r, a, b in zip(row, first, end, strict=True):
        assert not covered[r, a:b].any()
        assert a == 0 or values[r, a - 1] <= level
        assert b == values.shape[1] or values[r, b] <= level
        covered[r, a:b] = True
    assert (covered == (values > level)).all()


def test_crossings_lie_on_the_line_between_middles() -> None:
    values = np.array([[0.0, 1.0, 1.0, 0.0, 0.0, 0.5]])
    zero = np.array([0, 0])
    start, end = crossings(values, zero, np.array([1, 5]), np.array([3, 6]), np.array([0.25, 0.25]))
    # From 0 at 0.5 to 1 at 1.5: a quarter of the way is 0.75. The last run reaches the end.
    assert start == pytest.approx([0.75, 5.0])
    assert end == pytest.approx([3.25, 6.0])


@given(rows, st.floats(-8, 8, width=32))
def test_crossings_stay_around_their_runs(values: np.ndarray, level: float) -> None:
    levels = np.full(len(values), level, dtype=np.float32)
    row, first, end = runs_above(values, levels)
    start, stop = crossings(values, row, first, end, levels[row])
    assert (start >= np.maximum(first - 0.5, 0)).all()
    assert (start <= first + 0.5).all()
    assert (stop <= np.minimum(end + 0.5, values.shape[1])).all()
    assert (stop >= end - 0.5).all()
    assert (stop >= start).all()


def test_contrast_of_a_known_sequence() -> None:
    sums = integral(np.array([[0.0, 0.2, 1.0, 1.0, 0.4, 0.0]]))
    zero = np.array([0])
    score = contrast(sums, zero, np.array([2.0]), np.array([4.0]), 0.5)
    assert score == pytest.approx([1.0 - (0.2 + 0.4) / 2])


def test_beyond_the_ends_the_mean_counts() -> None:
    row = np.array([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    score = contrast(integral(row), np.array([0]), np.array([0.0]), np.array([2.0]), 1.0)
    mean = 2 / 6
    assert score == pytest.approx([1.0 - (2 * mean + 2 * 0.0) / 4])


def test_no_outer_region_counts_nothing() -> None:
    sums = integral(np.array([[0.5, 1.0, 0.5]]))
    assert contrast(sums, np.array([0]), np.array([1.0]), np.array([2.0]), 0.0) == [1.0]


def test_a_peak_without_length_has_a_score() -> None:
    row = np.array([[-1.0, 1e-45, -1.0]])
    at = np.array([1.5])
    assert np.isfinite(contrast(integral(row), np.array([0]), at, at, 0.25)).all()
