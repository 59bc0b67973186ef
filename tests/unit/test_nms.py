from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backtal.localization.nms import suppress, suppress_softly
from backtal.segments import Segment, overlap_ratio

Doubles = NDArray[np.float64]

times = st.integers(0, 200).map(lambda tenths: tenths / 10)
intervals = st.tuples(times, times).map(sorted)
scored = st.lists(st.tuples(intervals, st.integers(0, 8).map(lambda e: e / 8)), max_size=25)
tious = st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0])


def _arrays(cases: list[tuple[list[float], float]]) -> tuple[Doubles, Doubles]:
    pairs = np.array([pair for pair, _ in cases], dtype=np.float64).reshape(-1, 2)
    return pairs, np.array([score for _, score in cases], dtype=np.float64)


@given(intervals, intervals)
def test_overlap_is_symmetric_and_a_share(one: list[float], other: list[float]) -> None:
    first, second = np.array([one]), np.array([other])
    ratio = overlap_ratio(first, second)[0, 0]
    assert ratio == overlap_ratio(second, first)[0, 0]
    assert 0 <= ratio <= 1
    if one == other and one[1] > one[0]:
        assert ratio == 1


def test_overlap_of_known_pairs() -> None:
    first = np.array([[0.0, 10.0], [5.0, 5.0]])
    second = np.array([[5.0, 15.0], [10.0, 20.0], [0.0, 10.0], [5.0, 5.0]])
    expected = np.array([[1 / 3, 0, 1, 0], [0, 0, 0, 0]])
    assert overlap_ratio(first, second) == pytest.approx(expected)


def test_overlap_of_nothing() -> None:
    assert overlap_ratio(np.zeros((0, 2)), np.zeros((3, 2))).shape == (0, 3)


@given(scored, tious)
def test_no_kept_pair_overlaps_more_than_allowed(
    cases: list[tuple[list[float], float]], tiou: float
) -> None:
    pairs, scores = _arrays(cases)
    kept = suppress(pairs, scores, tiou)
    ratio = overlap_ratio(pairs[kept], pairs[kept])
    assert (ratio[np.triu_indices(len(kept), 1)] <= tiou).all()
    assert (np.diff(scores[kept]) <= 0).all()


@given(scored, tious)
def test_what_is_left_out_is_suppressed_by_a_better_one(
    cases: list[tuple[list[float], float]], tiou: float
) -> None:
    pairs, scores = _arrays(cases)
    kept = suppress(pairs, scores, tiou)
    for lost in set(range(len(cases))) - set(kept.tolist()):
        better = kept[scores[kept] >= scores[lost]]
        ratio = overlap_ratio(pairs[[lost]], pairs[better])[0]
        same = (pairs[better] == pairs[lost]).all(axis=1)
        assert (ratio > tiou).any() or same.any()


@given(scored, tious, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    cases: list[tuple[list[float], float]], tiou: float, random: object
) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    answers = []
    for one in (cases, shuffled):
        pairs, scores = _arrays(one)
        kept = suppress(pairs, scores, tiou)
        answers.append([(*pairs[i], scores[i]) for i in kept])
    assert answers[0] == answers[1]


def test_added_length_makes_neighbours_overlap() -> None:
    pairs, scores = np.array([[0.0, 0.1], [0.15, 0.25]]), np.array([0.9, 0.8])
    assert suppress(pairs, scores, 0.5).tolist() == [0, 1]
    assert suppress(pairs, scores, 0.5, added_length=1.0).tolist() == [0]


def test_seconds_of_a_segment() -> None:
    assert Segment(1.5, 4.0, "a", 0.5).seconds == 2.5


sigmas = st.sampled_from([0.1, 0.5, 2.0])


@given(scored, tious, sigmas)
def test_soft_suppression_lowers_by_every_surer_neighbour(
    cases: list[tuple[list[float], float]], tiou: float, sigma: float
) -> None:
    pairs, scores = _arrays(cases)
    kept, lowered = suppress_softly(pairs, scores, tiou, sigma)
    ratio = overlap_ratio(pairs[kept], pairs[kept])
    assert (ratio[np.triu_indices(len(kept), 1)] <= tiou).all()
    assert (np.diff(lowered) <= 0).all()
    for place, index in enumerate(kept):
        surer = ratio[place, :place]
        assert lowered[place] == pytest.approx(scores[index] * np.exp(-(surer**2).sum() / sigma))


@given(scored, tious, sigmas, st.randoms(use_true_random=False))
def test_soft_suppression_does_not_mind_the_order(
    cases: list[tuple[list[float], float]], tiou: float, sigma: float, random: object
) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    answers = []
    for one in (cases, shuffled):
        pairs, scores = _arrays(one)
        kept, lowered = suppress_softly(pairs, scores, tiou, sigma)
        answers.append([(*pairs[i], score) for i, score in zip(kept, lowered, strict=True)])
    assert answers[0] == answers[1]


def test_soft_suppression_of_a_score_below_0_leaves_it() -> None:
    pairs, scores = np.array([[0.0, 10.0], [4.0, 14.0]]), np.array([0.9, -0.2])
    kept, lowered = suppress_softly(pairs, scores, 0.5, 0.5)
    assert kept.tolist() == [0, 1]
    assert lowered.tolist() == [0.9, -0.2]
