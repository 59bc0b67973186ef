"""What is told before the video ends stays as it was told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backtal.localization import Choice, WindowedLocalizer
from backtal.localization.choice import surest
from backtal.localization.finality import settled
from backtal.localization.nms import suppress_softly
from backtal.manifest import BundleDescription
from backtal.segments import Segment
from tests.unit.bundles import describe

Rows = NDArray[np.float32]

# Plateaus and single positions, ties, values on both sides of the clip at 0.
values = st.sampled_from([-3.0, -0.5, 0.0, 0.05, 0.2, 0.31, 0.5, 0.6, 0.8, 1.0, 4.0])
plateaus = st.lists(
    st.tuples(values, values, st.sampled_from([0.0, 0.1, 0.9]), st.integers(1, 30)),
    min_size=1,
    max_size=14,
)


class AllAtTheEnd(WindowedLocalizer):
    """The reference: nothing is final before the end."""

    def _settle(self) -> None:
        """Nothing."""


def rows_of(parts: list[tuple[float, float, float, int]]) -> Rows:
    """Two classes and the magnitude [3, L]."""
    return np.concatenate(
        [np.repeat([[a], [b], [m]], length, axis=1) for a, b, m, length in parts], axis=1
    ).astype(np.float32)


def streamed(
    localizer: WindowedLocalizer, rows: Rows, sizes: list[int], has_magnitude: bool
) -> tuple[list[tuple[Segment, ...]], tuple[Segment, ...]]:
    """What was given after each push, and the answer."""
    given, start = [], 0
    while start < rows.shape[1]:
        piece = rows[:, start : start + sizes[start % len(sizes)]]
        localizer.push(piece[:2], piece[2] if has_magnitude else None)
        given.append(localizer.take_final())
        start += piece.shape[1]
    return given, localizer.finish(float(rows.shape[1]))


@given(
    parts=plateaus,
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
    window=st.integers(2, 17),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    kind=st.sampled_from(["logits", "probability"]),
    has_magnitude=st.booleans(),
    nms_sigma=st.sampled_from([None, 0.3]),
    added=st.sampled_from([0.0, 1.0]),
    class_threshold=st.sampled_from([0.0, 0.4]),
    max_segments=st.sampled_from([1, 3, 100_000]),
    fallback=st.booleans(),
)
@settings(max_examples=40)
def test_what_is_given_early_is_the_answer(
    parts: list[tuple[float, float, float, int]],
    noise: float,
    seed: int,
    window: int,
    sizes: list[int],
    kind: Any,
    has_magnitude: bool,
    nms_sigma: float | None,
    added: float,
    class_threshold: float,
    max_segments: int,
    fallback: bool,
) -> None:
    rows = rows_of(parts)
    rows[:2] += np.random.default_rng(seed).normal(0, noise, rows[:2].shape).astype(np.float32)
    bundle = describe(
        kind=kind,
        window_positions=window,
        magnitude=has_magnitude,
        magnitude_thresholds=(0.5,) if has_magnitude else (),
        cas_thresholds=(0.0, 0.3, 0.6) if seed % 2 else (0.4,),
        class_score_threshold=class_threshold,
        nms_sigma=nms_sigma,
        nms_added_seconds=added,
        max_segments=max_segments,
        argmax_fallback=fallback,
    )
    given_parts, answer = streamed(WindowedLocalizer(bundle), rows, sizes, has_magnitude)
    _, expected = streamed(AllAtTheEnd(bundle), rows, [rows.shape[1]], has_magnitude)
    assert answer == expected
    told = [segment for part in given_parts for segment in part]
    assert len(told) == len(set(told)), "a segment was given twice"
    if max_segments > len(answer):
        assert set(told) <= set(answer), "a segment was taken back"
    assert surest({*told, *answer}, max_segments) == answer


def actions_every(seconds: int, length: int) -> Rows:
    rows = np.full((2, length), -2.0, np.float32)
    for start in range(10, length - 10, seconds):
        rows[0, start : start + 6] = 3.0
    return rows


def given_by(bundle: BundleDescription, rows: Rows, choice: Choice | None = None) -> list[Segment]:
    localizer = WindowedLocalizer(bundle, choice)
    localizer.push(rows)
    return list(localizer.take_final())


@pytest.mark.parametrize("kind", ["logits", "probability"])
def test_a_long_video_gives_its_segments_as_it_goes(kind: Any) -> None:
    rows = actions_every(25, 1000)
    if kind == "probability":
        rows = 1 / (1 + np.exp(-rows))
    bundle = describe(kind=kind, window_positions=40, class_score_threshold=0.3)
    localizer = WindowedLocalizer(bundle)
    given: list[Segment] = []
    for start in range(0, 1000, 10):
        localizer.push(rows[:, start : start + 10])
        given += localizer.take_final()
        # Two windows behind: one to be full, one to know what its neighbour sees.
        behind = [one for one in range(10, 990, 25) if one + 6 < start + 10 - 80]
        assert len(given) >= len(behind)
    answer = localizer.finish(1000.0)
    assert set(given) <= set(answer)
    assert len(answer) == len(range(10, 990, 25))


def test_the_choice_of_the_caller_holds_for_what_is_given_early() -> None:
    rows = actions_every(25, 500)
    rows[1, 30:36] = 3.0
    bundle = describe(kind="logits", window_positions=40, class_score_threshold=0.0)
    assert {one.label for one in given_by(bundle, rows)} == {"c0", "c1"}
    only = given_by(bundle, rows, Choice(classes=("c1",)))
    assert {one.label for one in only} == {"c1"}
    some = given_by(bundle, rows, Choice(score_threshold=0.9))
    assert all(one.score >= 0.9 for one in some)
    assert len(given_by(bundle, rows, Choice(max_segments=2))) == 2


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9), st.integers(1, 9)), max_size=12),
    st.integers(0, 50),
)
def test_settled_ones_are_apart_from_the_others(
    parts: list[tuple[int, int, int]], frontier: int
) -> None:
    start = np.array([a for a, _, _ in parts], np.float64)
    end = start + np.array([n for _, n, _ in parts], np.float64)
    score = np.array([s for _, _, s in parts], np.float64)
    mask = settled(start, end, float(frontier))
    assert np.all(end[mask] <= frontier)
    overlap = (start[mask, None] < end[~mask]) & (end[mask, None] > start[~mask])
    assert not overlap.any()
    # NMS of each part gives what NMS of all gives.
    spans = np.stack([start, end], axis=1)

    def kept(which: NDArray[np.bool_]) -> set[tuple[float, ...]]:
        index, scores = suppress_softly(spans[which], score[which], 0.5, 0.3)
        return {(*spans[which][i], s) for i, s in zip(index, scores, strict=True)}

    assert kept(mask) | kept(~mask) == kept(np.ones(len(parts), bool))
