from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from backtal.localization import WindowedLocalizer, localize, video_scores
from backtal.localization.scores import clipped_range, runs_above
from backtal.manifest import BundleDescription
from backtal.segments import Segment
from tests.unit.bundles import describe

Rows = NDArray[np.float32]

# Values with many ties and long plateaus: where edges and levels meet.
steps = st.sampled_from([-2.0, -0.5, 0.0, 0.2, 0.5, 0.6, 0.8, 1.0, 3.0])
lengths = st.integers(1, 60)
window_sizes = st.integers(2, 17)


def _sequences(levels: st.SearchStrategy[float]) -> st.SearchStrategy[Rows]:
    """CAS of two classes, made of plateaus."""
    plateau = st.tuples(levels, levels, st.integers(1, 25))
    return st.lists(plateau, min_size=1, max_size=8).map(
        lambda parts: np.concatenate(
            [np.repeat([[a], [b]], n, axis=1) for a, b, n in parts], axis=1
        ).astype(np.float32)
    )


def _all_proposals(bundle: BundleDescription, cas: Rows) -> list[Segment]:
    return list(localize(cas, description=bundle, duration_seconds=float(cas.shape[1])))


def _plain(**changes: Any) -> dict[str, Any]:
    """No NMS, everything present, one threshold: what comes out are the proposals."""
    return {
        "class_score_threshold": 0.0,
        "cas_thresholds": (0.5,),
        "nms_tiou": 1.0,
        "max_segments": 100_000,
        **changes,
    }


@given(_sequences(st.sampled_from([0.0, 0.3, 0.49, 0.5, 0.7, 0.9])), window_sizes)
@settings(max_examples=60)
def test_a_probability_in_windows_gives_the_whole_sequences_runs(cas: Rows, window: int) -> None:
    whole = describe(window_positions=cas.shape[1] + 1, **_plain(outer_width=0))
    cut = describe(window_positions=window, **_plain(outer_width=0))
    spans = [
        {
            (one.label, round(one.start_seconds, 9), round(one.end_seconds, 9))
            for one in _all_proposals(bundle, cas)
        }
        for bundle in (whole, cut)
    ]
    assert spans[0] == spans[1]


@given(_sequences(steps), window_sizes, st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=80)
def test_nothing_above_a_windows_threshold_is_lost(
    cas: Rows, window: int, class_threshold: float
) -> None:
    changes = {"class_score_threshold": class_threshold, "top_k_ratio": 0.3}
    bundle = describe(kind="logits", window_positions=window, **_plain(**changes))
    found = _all_proposals(bundle, cas)
    start, end = 0, 0
    while end < cas.shape[1]:
        end = min(start + window, cas.shape[1])
        piece = cas[:, start:end]
        low, delta = clipped_range(piece)
        present = video_scores(piece, 0.3) >= class_threshold
        for row, first, stop in zip(*runs_above(piece, low + 0.5 * delta), strict=True):
            if present[row]:
                assert any(
                    one.label == f"c{row}"
                    and one.start_seconds < start + stop
                    and one.end_seconds > start + first
                    for one in found
                ), (row, start + first, start + stop)
        start += window // 2


@given(
    arrays.arrays(np.float32, st.tuples(st.just(2), lengths), elements=st.floats(-3, 3, width=32)),
    window_sizes,
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
)
@settings(max_examples=50)
def test_how_the_cas_is_cut_into_pieces_does_not_matter(
    cas: Rows, window: int, pieces: list[int]
) -> None:
    bundle = describe(kind="logits", window_positions=window)
    localizer = WindowedLocalizer(bundle)
    start = 0
    while start < cas.shape[1]:
        size = pieces[start % len(pieces)]
        localizer.push(cas[:, start : start + size])
        start += size
    expected = _all_proposals(bundle, cas)
    assert list(localizer.finish(float(cas.shape[1]))) == expected


@given(
    arrays.arrays(np.float32, st.tuples(st.just(2), lengths), elements=st.floats(-3, 3, width=32)),
    st.integers(0, 30),
)
def test_a_video_shorter_than_a_window_is_one_window(cas: Rows, more: int) -> None:
    length = max(2, cas.shape[1])
    exact = describe(kind="logits", window_positions=length)
    longer = describe(kind="logits", window_positions=length + more)
    assert _all_proposals(exact, cas) == _all_proposals(longer, cas)


@pytest.mark.parametrize("kind", ["probability", "logits"])
@pytest.mark.parametrize("num_windows", [1.2, 2.5, 6, 40])
def test_a_segment_longer_than_a_window_comes_out_once(kind: Any, num_windows: float) -> None:
    window, around = 20, 80
    size = int(window * num_windows)
    rng = np.random.default_rng(3)
    cas = rng.uniform(0, 0.1, (3, size + 2 * around)).astype(np.float32)
    cas[0, around : around + size] += 0.8
    if kind == "logits":
        cas = 10 * cas - 4
        cas[2] = 0
    bundle = describe(3, kind=kind, window_positions=window, class_score_threshold=0.5)
    found = _all_proposals(bundle, cas)
    assert len(found) == 1
    assert found[0].label == "c0"
    assert found[0].start_seconds == pytest.approx(around, abs=0.6)
    assert found[0].end_seconds == pytest.approx(around + size, abs=0.6)
    # Inside 0.8 or more, outside about 0, save where the outer region outgrows the video.
    assert found[0].score > (0.8 if num_windows < 10 else 0.4)


def test_a_segment_cut_by_an_edge_is_left_to_the_neighbour() -> None:
    cas = np.zeros((1, 40), dtype=np.float32)
    cas[0, 13:19] = 0.9  # The first window ends at 16, the second begins at 8.
    (found,) = _all_proposals(describe(1, window_positions=16), cas)
    assert (found.start_seconds, found.end_seconds) == pytest.approx((13, 19), abs=0.3)


def test_an_orphan_at_an_edge_is_followed() -> None:
    cas = np.zeros((1, 24), dtype=np.float32)
    cas[0, 14:18] = 1.0  # At the first window's end; in the second a far higher peak hides it.
    cas[0, 21:23] = 50.0
    cas[0, 2:4] = 1.0
    found = _all_proposals(describe(1, kind="logits", window_positions=16), cas)
    assert any(
        (one.start_seconds, one.end_seconds) == pytest.approx((14, 18), abs=0.6) for one in found
    )


def test_each_window_is_normalised_by_itself() -> None:
    cas = np.full((1, 64), -1.0, dtype=np.float32)
    cas[0, 4:6] = 1.0
    cas[0, 50:52] = 100.0
    found = _all_proposals(describe(1, kind="logits", window_positions=16), cas)
    assert sorted(round(one.start_seconds) for one in found)[:1] == [4]
    whole = _all_proposals(describe(1, kind="logits", window_positions=64), cas)
    assert all(one.start_seconds > 40 for one in whole)


def test_the_score_is_contrast_plus_video_score() -> None:
    cas = np.zeros((1, 16), dtype=np.float32)
    cas[0, 4:8] = 0.8
    changes = {"top_k_ratio": 0.25, "outer_width": 0.5, "gamma": 0.5, "cas_thresholds": (0.4,)}
    (found,) = _all_proposals(describe(1, **changes), cas)
    # Half way down from 0.8 to 0 lies the threshold, so the edges are the positions' own.
    assert (found.start_seconds, found.end_seconds) == pytest.approx((4, 8))
    assert found.score == pytest.approx(0.8 + 0.5 * 0.8)


def test_the_answer_is_in_seconds_and_ends_with_the_video() -> None:
    cas = np.zeros((1, 10), dtype=np.float32)
    cas[0, 8:] = 0.9
    bundle = describe(1, position_seconds=0.5)
    for duration in (4.9, 5.0, 5.2):
        (found,) = localize(cas, description=bundle, duration_seconds=duration)
        assert found.end_seconds == duration
        assert found.start_seconds == pytest.approx(4, abs=0.2)


def test_overlapping_thresholds_give_one_segment() -> None:
    cas = np.zeros((1, 64), dtype=np.float32)
    cas[0, 20:30] = 0.9
    bundle = describe(1, cas_thresholds=(0.3, 0.4, 0.5, 0.6, 0.7))
    assert len(_all_proposals(bundle, cas)) == 1


def test_no_class_over_its_threshold_gives_no_segment() -> None:
    assert _all_proposals(describe(), np.full((2, 40), 0.2, dtype=np.float32)) == []


def test_a_weaker_class_beside_a_stronger_one_is_found_as_a_companion() -> None:
    cas = np.zeros((6, 40), dtype=np.float32)
    cas[0, 4:14], cas[1, 24:34] = 8.0, 5.0
    # A twentieth of the softmax is what the stronger one leaves.
    assert video_scores(cas, 0.125)[1] < 0.05
    one_window = {"kind": "logits", "window_positions": 40, "class_score_threshold": 0.25}
    alone, beside = describe(6, **one_window), describe(6, **one_window, companion_ratio=0.5)
    assert {one.label for one in _all_proposals(alone, cas)} == {"c0"}
    found = {one.label: (one.start_seconds, one.end_seconds) for one in _all_proposals(beside, cas)}
    assert found["c0"] == pytest.approx((4, 14), abs=0.6)
    assert found["c1"] == pytest.approx((24, 34), abs=0.6)
    assert len(found) == 2


def test_where_no_class_passes_there_are_no_companions() -> None:
    cas = np.random.default_rng(2).normal(0, 0.1, (6, 40)).astype(np.float32)
    bundle = describe(6, kind="logits", class_score_threshold=0.3, companion_ratio=0.01)
    assert _all_proposals(bundle, cas) == []


def test_the_background_is_never_answered() -> None:
    cas = np.full((3, 40), -3.0, dtype=np.float32)
    cas[2, 5:30] = 9.0
    bundle = describe(kind="logits", background=True)
    assert _all_proposals(bundle, cas) == []


def test_short_segments_are_left_out_on_request() -> None:
    cas = np.zeros((1, 40), dtype=np.float32)
    cas[0, 5], cas[0, 20:30] = 0.9, 0.9
    found = _all_proposals(describe(1, minimum_seconds=3.0), cas)
    assert [round(one.seconds) for one in found] == [10]


def test_the_magnitude_adds_proposals_in_windows() -> None:
    cas = np.full((1, 60), 0.05, dtype=np.float32)
    cas[0, 14:22] = 0.9
    magnitude = np.zeros(60, dtype=np.float32)
    magnitude[8:26] = 1.0  # Longer than the overlap of the windows: it has to be followed.
    bundle = describe(
        1, magnitude=True, magnitude_thresholds=(0.5,), cas_thresholds=(0.5,), nms_tiou=0.9
    )
    found = localize(cas, magnitude, description=bundle, duration_seconds=60)
    spans = sorted((round(one.start_seconds), round(one.end_seconds)) for one in found)
    assert spans == [(8, 26), (14, 22)]


def test_memory_does_not_grow_with_the_video() -> None:
    localizer = WindowedLocalizer(describe(window_positions=16))
    rng = np.random.default_rng(0)
    sizes = set()
    for _ in range(25):
        localizer.push(rng.uniform(0, 1, (2, 50)).astype(np.float32))
        sizes.add(localizer._rows.shape[1] // 64)
    assert max(sizes) <= 4
    assert localizer.finish(1250.0)
