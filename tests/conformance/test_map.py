"""The mAP of noisy THUMOS14 detections against the released evaluator's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backtal.annotations import GroundTruth
from backtal.evaluation import mean_average_precision, read_results
from tests.requirements import shared_folder


@pytest.fixture(scope="module")
def ground_truth() -> GroundTruth:
    return GroundTruth.load(shared_folder() / "thumos14" / "gt_thumos14.json")


def test_the_test_split_is_the_published_one(ground_truth: GroundTruth) -> None:
    test = ground_truth.subset("test")
    assert len(test.videos) == 210
    assert sum(len(video.instances) for video in test.videos.values()) == 3311
    assert len(test.classes) == 20


def test_mean_average_precision(reference_folder: Path, ground_truth: GroundTruth) -> None:
    answers = sorted(reference_folder.glob("map_*.json"))
    assert answers, f"{reference_folder} holds no map_*.json"
    for answer in answers:
        expected = json.loads(answer.read_text())
        detections = read_results(answer.with_name(answer.name.replace("map_", "detections_", 1)))
        result = mean_average_precision(
            ground_truth, detections, expected["tiou"], subset=expected["subset"], missing="empty"
        )
        assert result.mean_average_precision == pytest.approx(expected["mAP"], abs=1e-6)
        assert result.average == pytest.approx(expected["average"], abs=1e-6)
