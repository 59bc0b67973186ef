"""The error analysis, the reliability of scores, and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.errors import InvalidArgument
from backtal.evaluation import DiagnosisSettings, diagnose, mean_average_precision, reliability
from backtal.evaluation.charts import write_charts
from backtal.evaluation.diagnosis import KINDS
from backtal.segments import Segment


def _truth(**videos: list[tuple[float, float, str]]) -> GroundTruth:
    return GroundTruth(
        {
            name: VideoTruth("test", 100.0, None, tuple(Instance(*one) for one in instances))
            for name, instances in videos.items()
        },
        ("jump", "run", "swim"),
    )


@pytest.mark.parametrize(
    ("segment", "kind"),
    [
        (Segment(0, 10, "run", 0.5), "true_positive"),
        (Segment(0, 9, "run", 0.4), "double_detection"),
        (Segment(20, 30, "run", 0.4), "wrong_label"),
        (Segment(6, 14, "run", 0.4), "localization"),
        (Segment(26, 34, "run", 0.4), "confusion"),
        (Segment(50, 60, "run", 0.4), "background"),
        (Segment(9.5, 19.5, "run", 0.4), "background"),
    ],
)
def test_the_six_kinds(segment: Segment, kind: str) -> None:
    truth = _truth(a=[(0, 10, "run"), (20, 30, "jump")])
    found = {"a": [Segment(0, 10, "run", 0.5)] if kind == "double_detection" else []}
    found["a"].append(segment)
    counts = diagnose(truth, found).counts[2]
    assert counts[kind] == 1  # type: ignore[index]
    assert sum(counts.values()) == len(found["a"])


def test_of_two_partial_overlaps_the_larger_decides() -> None:
    truth = _truth(a=[(0, 10, "run"), (12, 22, "jump")])
    for start, kind in ((6.0, "localization"), (8.0, "confusion")):
        counts = diagnose(truth, {"a": [Segment(start, start + 9, "run", 1)]}).counts[1]
        assert counts[kind] == 1  # type: ignore[index]


def test_only_the_surest_of_each_class_count() -> None:
    truth = _truth(a=[(0, 10, "run"), (20, 30, "run"), (40, 50, "jump")])
    wrong = [Segment(70, 80, "run", 0.1 * place) for place in range(5)]
    found = {"a": [Segment(0, 10, "run", 0.9), *wrong, Segment(40, 50, "swim", 1.0)]}
    diagnosis = diagnose(truth, found)
    totals = {multiple: sum(counts.values()) for multiple, counts in diagnosis.counts.items()}
    assert [totals[multiple] for multiple in (1, 2, 3, 10)] == [2, 4, 6, 6]
    assert diagnosis.counts[1]["true_positive"] == 1


def test_the_gain_is_the_map_without_those_errors() -> None:
    truth = _truth(a=[(0, 10, "run"), (20, 30, "jump")])
    right = [Segment(0, 10, "run", 0.5), Segment(20, 30, "jump", 0.5)]
    wrong = [Segment(50, 60, "run", 0.9), Segment(4, 14, "run", 0.8)]
    gain = diagnose(truth, {"a": right + wrong}).gain
    before = mean_average_precision(truth, {"a": right + wrong}, [0.5]).average
    without = mean_average_precision(truth, {"a": right + wrong[1:]}, [0.5]).average
    assert gain["background"] == pytest.approx(without - before)
    assert gain["wrong_label"] == 0


seconds = st.integers(0, 40).map(float)
stretches = st.tuples(seconds, st.integers(1, 15).map(float)).map(lambda one: (one[0], sum(one)))
labels = st.sampled_from(["run", "jump"])
instances = st.lists(st.tuples(stretches, labels), min_size=1, max_size=5)
detections = st.lists(st.tuples(stretches, labels, st.integers(0, 10)), max_size=8)
videos = st.lists(st.tuples(instances, detections), min_size=1, max_size=3)


def _case(drawn: list[Any]) -> tuple[GroundTruth, dict[str, list[Segment]]]:
    truth = _truth(
        **{f"v{i}": [(*span, label) for span, label in one] for i, (one, _) in enumerate(drawn)}
    )
    found = {
        f"v{i}": [Segment(*span, label, score / 10) for span, label, score in one]
        for i, (_, one) in enumerate(drawn)
    }
    return truth, found


@given(videos)
def test_every_instance_is_in_one_bucket_of_each_kind(drawn: list[Any]) -> None:
    truth, found = _case(drawn)
    diagnosis = diagnose(truth, found)
    total = sum(len(video.instances) for video in truth.videos.values())
    right = diagnosis.counts[10]["true_positive"]
    for buckets in (diagnosis.by_length, diagnosis.by_number):
        assert sum(one.num_instances for one in buckets) == total
        shares = [(one.share_found or 0) * one.num_instances for one in buckets]
        if max(len(one) for one in found.values()) <= 8:
            assert sum(shares) == pytest.approx(right)
        for one in buckets:
            assert (one.normalised_map is None) == (one.num_instances == 0)
            assert one.normalised_map is None or 0 <= one.normalised_map <= 1


@given(videos, st.randoms(use_true_random=False))
def test_the_order_of_the_file_does_not_matter(drawn: list[Any], random: Any) -> None:
    truth, found = _case(drawn)
    names = list(found)
    random.shuffle(names)
    shuffled = {name: random.sample(found[name], len(found[name])) for name in names}
    assert diagnose(truth, found) == diagnose(truth, shuffled)
    assert mean_average_precision(truth, found, [0.5]) == mean_average_precision(
        truth, shuffled, [0.5]
    )
    assert reliability(truth, found) == reliability(truth, shuffled)


def test_lengths_and_numbers_fall_into_their_buckets() -> None:
    truth = _truth(a=[(0, 3, "run")], b=[(i * 10.0, i * 10.0 + 5, "run") for i in range(5)])
    found = {"a": [Segment(0, 3, "run", 1.0)], "b": []}
    diagnosis = diagnose(truth, found)
    lengths = {one.name: (one.num_instances, one.share_found) for one in diagnosis.by_length}
    numbers = {one.name: (one.num_instances, one.share_found) for one in diagnosis.by_number}
    assert lengths["<= 3"] == (1, 1.0)
    assert lengths["3 - 6"] == (5, 0.0)
    assert lengths["> 18"] == (0, None)
    assert numbers == {"<= 1": (1, 1.0), "2 - 4": (0, None), "5 - 8": (5, 0.0), "> 8": (0, None)}


def test_the_normalised_precision_counts_every_bucket_as_if_it_held_as_many() -> None:
    # Two instances a class on average; in the bucket one of them, found after one error.
    truth = _truth(a=[(0, 2, "run"), (20, 30, "run")])
    found = {"a": [Segment(50, 60, "run", 0.9), Segment(0, 2, "run", 0.8)]}
    first = diagnose(truth, found).by_length[0]
    assert first.normalised_map == pytest.approx(2 / (2 + 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tiou": 0.1}, "background_tiou 0.1 and tiou 0.1; they must rise"),
        ({"tiou": 1.5}, "tiou 1.5"),
        ({"most_multiples": 0}, "most_multiples is 0"),
        ({"length_edges_seconds": (3.0, 2.0)}, r"length_edges_seconds is \[3.0, 2.0\]"),
        ({"number_edges": ()}, r"number_edges is \[\]"),
    ],
)
def test_settings_out_of_their_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        DiagnosisSettings(**settings)


def test_scores_that_are_as_often_right_as_they_say_have_no_error() -> None:
    truth = _truth(a=[(i * 10.0, i * 10.0 + 5, "run") for i in range(8)])
    right = [Segment(i * 10.0, i * 10.0 + 5, "run", 0.8) for i in range(8)]
    wrong = [Segment(90, 95, "run", 0.8), Segment(96, 99, "run", 0.8)]
    told = reliability(truth, {"a": right + wrong})
    assert told.expected_calibration_error == pytest.approx(0)
    (one,) = told.bins
    assert (one.low, one.num_detections, one.share_right) == (0.8, 10, 0.8)


def test_the_calibration_error_is_the_mean_distance() -> None:
    truth = _truth(a=[(0, 5, "run")])
    found = {"a": [Segment(0, 5, "run", 0.75), Segment(50, 55, "run", 0.25)]}
    told = reliability(truth, found)
    assert told.expected_calibration_error == pytest.approx((0.25 + 0.25) / 2)


def test_scores_beyond_0_to_1_are_counted() -> None:
    truth = _truth(a=[(0, 5, "run")])
    told = reliability(truth, {"a": [Segment(0, 5, "run", 1.4), Segment(50, 55, "run", -0.2)]})
    assert told.num_beyond == 2
    assert told.expected_calibration_error == 0


def test_no_detection_has_no_error() -> None:
    told = reliability(_truth(a=[(0, 5, "run")]), {"a": []})
    assert (told.bins, told.expected_calibration_error) == ((), 0.0)


def test_the_pictures_say_what_was_counted(tmp_path: Path) -> None:
    truth = _truth(a=[(0, 10, "run"), (20, 30, "jump")])
    found = {"a": [Segment(0, 10, "run", 0.9), Segment(50, 60, "run", 0.3)]}
    paths = write_charts(tmp_path / "charts", diagnose(truth, found), reliability(truth, found))
    assert [path.name for path in paths] == ["errors.svg", "sensitivity.svg", "reliability.svg"]
    told = {}
    for path in paths:
        root = ElementTree.fromstring(path.read_text())
        titles = [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}title")]
        told[path.stem] = titles
    assert "true positive: 1.000" in told["errors"]
    assert "background: 0.500" in told["errors"]
    assert len(told["errors"]) == 1 + 10 * len(KINDS)
    assert "share found: 0.500" in told["sensitivity"]
    assert "1 detections, mean score 0.900, right: 1.000" in told["reliability"]
    heights = [
        float(one.get("height", "nan"))
        for one in ElementTree.fromstring(paths[0].read_text()).iter(
            "{http://www.w3.org/2000/svg}rect"
        )
    ]
    assert np.isfinite(heights).all()
