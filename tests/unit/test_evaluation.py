from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from backtal.evaluation import (
    mean_average_precision,
    parse_results,
    read_results,
    write_results,
)
from backtal.segments import Segment

RESULT = {"label": "run", "score": 0.5, "segment": [1.0, 2.0]}


def _truth(**videos: list[tuple[float, float, str]]) -> GroundTruth:
    return GroundTruth(
        {
            name: VideoTruth("test", 100.0, None, tuple(Instance(*one) for one in instances))
            for name, instances in videos.items()
        },
        ("jump", "run", "swim"),
    )


def _literal_ap(
    truth: GroundTruth, found: dict[str, list[Segment]], label: str, tiou: float
) -> Any:
    """The protocol as ActivityNet's code has it, loop by loop."""
    free = {
        name: [one for one in video.instances if one.label == label]
        for name, video in truth.videos.items()
    }
    total = sum(map(len, free.values()))
    ranked = sorted(
        ((name, one) for name, segments in found.items() for one in segments if one.label == label),
        key=lambda pair: (-pair[1].score, pair[0], pair[1].start_seconds, pair[1].end_seconds),
    )
    hits = []
    for name, one in ranked:
        overlaps = []
        for instance in free[name]:
            shared = min(one.end_seconds, instance.end_seconds) - max(
                one.start_seconds, instance.start_seconds
            )
            shared = max(0.0, shared)
            union = one.seconds + instance.end_seconds - instance.start_seconds - shared
            overlaps.append(shared / union if union else 0.0)
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= tiou)
        if hits[-1]:
            del free[name][best]
    area, recall = 0.0, 0.0
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    for rank, hit in enumerate(np.cumsum(hits)):
        area += (hit / total - recall) * precisions[rank:].max()
        recall = hit / total
    return area


def test_a_perfect_answer_has_1() -> None:
    truth = _truth(a=[(0, 5, "run"), (7, 9, "jump")], b=[(1, 2, "run")])
    found = {
        name: [Segment(i.start_seconds, i.end_seconds, i.label, 0.5) for i in video.instances]
        for name, video in truth.videos.items()
    }
    result = mean_average_precision(truth, found, (0.5, 1.0))
    assert result.mean_average_precision == (1.0, 1.0)
    assert result.average == 1.0
    assert (result.num_videos, result.num_instances, result.num_detections) == (2, 3, 3)
    assert set(result.class_average_precision) == {"run", "jump"}
    assert result.at(0.5) == 1.0
    with pytest.raises(InvalidArgument, match=r"no mAP at tIoU 0.7; there is one at \[0.5, 1.0\]"):
        result.at(0.7)


def test_no_detection_has_0() -> None:
    result = mean_average_precision(_truth(a=[(0, 5, "run")]), {"a": []}, [0.5])
    assert result.mean_average_precision == (0.0,)


def test_an_instance_is_matched_once() -> None:
    truth = _truth(a=[(0, 10, "run")])
    twice = {"a": [Segment(0, 10, "run", 0.9), Segment(0, 10, "run", 0.8)]}
    after = {"a": [Segment(50, 60, "run", 0.9), Segment(0, 10, "run", 0.8)]}
    assert mean_average_precision(truth, twice, [0.5]).average == 1.0
    assert mean_average_precision(truth, after, [0.5]).average == 0.5


def test_a_detection_takes_the_next_best_free_instance() -> None:
    truth = _truth(a=[(0, 10, "run"), (1, 11, "run")])
    found = {"a": [Segment(0, 10, "run", 0.9), Segment(0, 10, "run", 0.8)]}
    assert mean_average_precision(truth, found, [0.5]).average == 1.0


def test_a_label_counts_only_where_it_has_instances() -> None:
    truth = _truth(a=[(0, 10, "run")])
    found = {"a": [Segment(0, 10, "run", 0.9), Segment(0, 10, "swim", 0.9)]}
    result = mean_average_precision(truth, found, [0.5])
    assert list(result.class_average_precision) == ["run"]
    assert result.average == 1.0


seconds = st.integers(0, 12).map(float)
stretches = st.tuples(seconds, st.integers(1, 6).map(float)).map(lambda one: (one[0], sum(one)))
labels = st.sampled_from(["run", "jump"])
instances = st.lists(st.tuples(stretches, labels), min_size=1, max_size=5)
detections = st.lists(st.tuples(stretches, labels), max_size=8)


@given(
    st.lists(st.tuples(instances, detections), min_size=1, max_size=3),
    st.sampled_from([0.1, 0.5, 0.75]),
    st.randoms(use_true_random=False),
)
def test_agrees_with_the_protocol_taken_literally(
    videos: list[Any], tiou: float, random: Any
) -> None:
    truth = _truth(
        **{f"v{i}": [(*span, label) for span, label in one] for i, (one, _) in enumerate(videos)}
    )
    found = {
        f"v{i}": [Segment(*span, label, random.random()) for span, label in one]
        for i, (_, one) in enumerate(videos)
    }
    result = mean_average_precision(truth, found, [tiou])
    for label, (value,) in result.class_average_precision.items():
        assert value == pytest.approx(_literal_ap(truth, found, label, tiou))


@pytest.mark.parametrize(
    ("found", "tious", "message"),
    [
        ({"a": []}, [0.5], "no detections for 1 of 2 videos of ground truth: b; .* empty list"),
        ({"a": [], "b": [], "c": []}, [0.5], "1 videos that ground truth does not have: c"),
        ({"a": [Segment(0, 1, "runn", 1)], "b": []}, [0.5], "'runn'.*did you mean 'run'"),
        ({"a": [], "b": []}, [], "tious is empty"),
        ({"a": [], "b": []}, [0.0], "a tIoU of 0.0"),
        ({"a": [], "b": []}, [1.1], "a tIoU of 1.1"),
    ],
)
def test_what_does_not_fit_is_an_error(found: Any, tious: list[float], message: str) -> None:
    truth = _truth(a=[(0, 1, "run")], b=[])
    with pytest.raises(InvalidArgument, match=message):
        mean_average_precision(truth, found, tious)


def test_missing_videos_may_count_as_empty() -> None:
    truth = _truth(a=[(0, 1, "run")], b=[(0, 1, "run")])
    found = {"a": [Segment(0, 1, "run", 1.0)]}
    assert mean_average_precision(truth, found, [0.5], missing="empty").average == 0.5


def test_only_one_subset_is_evaluated() -> None:
    videos = {
        name: VideoTruth(name, 9.0, None, (Instance(0, 1, "run"),)) for name in ("train", "test")
    }
    truth = GroundTruth(videos, ("run",))
    found = {"test": [Segment(0, 1, "run", 1.0)]}
    assert mean_average_precision(truth, found, [0.5], subset="test").num_videos == 1
    with pytest.raises(InvalidArgument, match="no subset 'val'; it has"):
        mean_average_precision(truth, found, [0.5], subset="val")


def test_ground_truth_without_an_instance() -> None:
    with pytest.raises(InvalidArgument, match="no instance"):
        mean_average_precision(_truth(a=[]), {"a": []}, [0.5])


def test_results_are_read_back_to_the_digit(tmp_path: Path) -> None:
    found = {"a": (Segment(0.1, 1 / 3, "run", 2 / 3), Segment(1, 2, "jump", 0.1)), "b": ()}
    path = tmp_path / "results.json"
    write_results(path, found)
    assert read_results(path) == found
    assert json.loads(path.read_text())["version"] == "VERSION 1.3"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], r"results is \[\], expected an object"),
        ({}, "results: results is None"),
        ({"results": {"a": {}}}, "results.a is {}, expected a list"),
        ({"results": {"a": [3]}}, r"results.a\[0\] is 3, expected an object"),
        ({"results": {"a": [{**RESULT, "segment": [2, 1]}]}}, r"\[0\].segment.*before it starts"),
        ({"results": {"a": [{**RESULT, "segment": [2]}]}}, "expected a start and an end"),
        ({"results": {"a": [{**RESULT, "score": "1"}]}}, "score is '1', expected a number"),
        ({"results": {"a": [{**RESULT, "score": True}]}}, "score is True, expected a number"),
        ({"results": {"a": [{**RESULT, "score": 10**400}]}}, "expected a finite number"),
        ({"results": {"a": [{**RESULT, "label": ""}]}}, "label is '', expected a text"),
    ],
)
def test_damaged_results(document: Any, message: str) -> None:
    with pytest.raises(InvalidFile, match=message):
        parse_results(json.dumps(document).encode())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(InvalidFile, match="is a folder"):
        read_results(tmp_path)


@given(st.binary(max_size=200))
def test_any_bytes_are_results_or_an_error(content: bytes) -> None:
    try:
        parse_results(content)
    except InvalidFile:
        pass
