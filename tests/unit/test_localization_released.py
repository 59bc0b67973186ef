from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backtal.localization import LocalizationSettings, localize
from backtal.localization.presets import PRESETS, TIOUS
from backtal.localization.released import released_segments, resize_linear
from backtal.segments import Segment
from tests.unit.bundles import describe

PLAIN = LocalizationSettings(
    preset="released", cas_thresholds=(0.0,), class_score_threshold=0.0, gamma=0.0, nms_tiou=1.0
)


def _segments(row: list[float], **changes: object) -> list[Segment]:
    settings = PLAIN.model_copy(update=changes)
    return released_segments(
        np.array([row]),
        np.array([0.5]),
        None,
        classes=["c0"],
        settings=settings,
        kind="probability",
        num_frames=len(row),
        duration_seconds=float(len(row)),
    )


def test_resize_is_half_pixel_bilinear() -> None:
    # OpenCV's own answers for resize(..., interpolation=INTER_LINEAR).
    assert resize_linear(np.array([[0.0, 1.0]]), 4)[0].tolist() == [0, 0.25, 0.75, 1]
    assert resize_linear(np.array([[0.0, 1.0, 2.0, 3.0]]), 2)[0].tolist() == [0.5, 2.5]
    assert resize_linear(np.array([[7.0]]), 3)[0].tolist() == [7, 7, 7]


@given(
    arrays.arrays(np.float64, (2, 7), elements=st.floats(-5, 5)),
    st.integers(1, 40),
)
def test_resize_stays_within_the_values(rows: np.ndarray, num_samples: int) -> None:
    resized = resize_linear(rows, num_samples)
    assert resized.shape == (2, num_samples)
    assert (resized >= rows.min(axis=1, keepdims=True) - 1e-9).all()
    assert (resized <= rows.max(axis=1, keepdims=True) + 1e-9).all()
    assert resize_linear(rows, 7) == pytest.approx(rows)


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0]), min_size=4, max_size=30),
    st.sampled_from([0.25, 0.6, 1.0, 20.0]),
    st.sampled_from([0.0, 0.3]),
)
def test_scores_are_those_of_the_literal_slices(
    row: list[float], width: float, threshold: float
) -> None:
    for found in _segments(row, outer_width=width, cas_thresholds=(threshold,)):
        first, last = round(found.start_seconds), round(found.end_seconds) - 1
        kept = [value if value >= threshold else 0.0 for value in row]
        size = last - first + 1
        left = kept[max(0, int(first - width * size)) : first]
        right = kept[last + 1 : int(last + width * size)]
        outer = float(np.mean(left + right)) if left + right else 0.0
        assert found.score == pytest.approx(np.mean(kept[first : last + 1]) - outer)


def test_index_0_alone_is_no_proposal() -> None:
    assert _segments([1.0, 0.0, 0.0, 0.0]) == []
    assert len(_segments([0.0, 1.0, 0.0, 0.0])) == 1
    assert len(_segments([1.0, 0.0, 1.0, 0.0])) == 2


def test_activitynet_trims_and_adds_the_whole_video() -> None:
    found = _segments(
        [0.0, 1, 1, 1, 1, 1, 0, 0, 0, 0], trim_fraction=0.02, whole_video_score=0.6, nms_tiou=0.7
    )
    assert [(one.start_seconds, one.end_seconds) for one in found] == [
        pytest.approx((1.1, 5.9)),
        (0, 10),
    ]
    assert found[1].score == 0.6


def test_no_whole_video_without_a_proposal() -> None:
    assert _segments([0.0, 0, 0], whole_video_score=0.6) == []


def test_the_magnitude_adds_proposals() -> None:
    cas = np.array([[0.0, 0, 0, 1, 1, 0, 0, 0], [-1.0] * 8], dtype=np.float32)
    magnitude = np.array([0.0, 0, 2, 2, 2, 2, 0, 0], dtype=np.float32)
    settings = {
        "preset": "released",
        "magnitude_thresholds": (0.5,),
        "class_score_threshold": 0.6,
        "top_k_ratio": 0.25,
        "nms_tiou": 0.9,
    }
    bundle = describe(kind="logits", magnitude=True, **settings)
    found = localize(cas, magnitude, description=bundle, duration_seconds=8, num_frames=8)
    spans = {(one.start_seconds, one.end_seconds) for one in found}
    assert spans == {(3, 5), (2, 6)}
    assert {one.label for one in found} == {"c0"}


def test_the_whole_video_is_one_sequence() -> None:
    bundle = describe(1, preset="released", window_positions=4)
    cas = np.zeros((1, 40), dtype=np.float32)
    cas[0, 10:20] = 0.9
    (found,) = localize(cas, description=bundle, duration_seconds=80.0, num_frames=40)
    assert (found.start_seconds, found.end_seconds, found.label) == (20, 40, "c0")


def test_absent_classes_give_nothing() -> None:
    bundle = describe(1, preset="released")
    assert localize(np.full((1, 9), 0.2), description=bundle, duration_seconds=9.0) == ()


def test_presets_are_the_published_settings() -> None:
    thumos, activitynet, hacs = (PRESETS[n] for n in ("THUMOS14", "ActivityNet1.2", "HACS"))
    assert [len(one.cas_thresholds) for one in (thumos, activitynet, hacs)] == [10, 6, 8]
    assert thumos.cas_thresholds[-1] == pytest.approx(0.225)
    assert thumos.magnitude_thresholds == pytest.approx(np.arange(7) * 0.075 + 0.3)
    assert (activitynet.outer_width, hacs.outer_width) == (20, 200)
    assert (thumos.nms_tiou, activitynet.nms_tiou, hacs.nms_tiou) == (0.55, 0.7, 0.71)
    assert TIOUS["THUMOS14"] == pytest.approx(np.arange(1, 10) / 10)
    assert TIOUS["HACS"] == TIOUS["ActivityNet1.2"] == pytest.approx(np.arange(50, 100, 5) / 100)
