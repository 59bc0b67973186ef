"""Ground truth and clicks of the generated corpus, in the formats that others read."""

from __future__ import annotations

import csv
import io
import json

import pytest

from backtal.annotations import GroundTruth
from backtal.clicks import Clicks
from backtal_training.corpus import ACTIONS, CorpusPlan, clicks_text, ground_truth, plan
from backtal_training.corpus.labels import ground_truth_text


@pytest.fixture(scope="module")
def whole() -> CorpusPlan:
    return plan()


def test_clicks_are_in_the_format_of_thumos14(whole: CorpusPlan) -> None:
    raw = clicks_text(whole).encode()
    assert raw.startswith(b"\xef\xbb\xbfURLID,URL,TagID,Tag,Start,End,Time,State\n")
    assert b"\r" not in raw
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    assert len(rows) == sum(len(video.click_seconds) for video in whole.videos)
    for row in rows:
        assert row["URLID"].startswith("training_")
        assert row["URL"] == f"{row['URLID']}.mp4"
        assert (row["TagID"], row["Tag"]) == (str(len(ACTIONS)), "background_background")
        assert row["Start"] == row["End"]
        assert (row["Time"], row["State"]) == ("1", "1")


def test_clicks_keep_their_times(whole: CorpusPlan) -> None:
    rows = list(csv.DictReader(io.StringIO(clicks_text(whole).lstrip("\ufeff"))))
    for video in whole.videos:
        times = [float(row["Start"]) for row in rows if row["URLID"] == video.name]
        assert times == list(video.click_seconds)


def test_ground_truth_is_activitynets(whole: CorpusPlan) -> None:
    database = json.loads(ground_truth_text(whole))["database"]
    assert set(database) == {video.name for video in whole.videos}
    assert {entry["subset"] for entry in database.values()} == {"training", "test"}
    for video in whole.videos:
        entry = database[video.name]
        assert entry["duration"] == pytest.approx(video.num_frames / 25)
        assert entry["fps"] == 25
        assert len(entry["annotations"]) == len(video.instances)
        for annotation, instance in zip(entry["annotations"], video.instances, strict=True):
            start, end = annotation["segment"]
            assert (start, end) == (instance.start_frame / 25, instance.end_frame / 25)
            assert annotation["label"] == instance.label
            assert 0 < start < end < entry["duration"]


def test_taxonomy_numbers_the_classes(whole: CorpusPlan) -> None:
    names = {node["nodeId"]: node["nodeName"] for node in ground_truth(whole)["taxonomy"]}
    assert names == dict(enumerate(ACTIONS))


def test_the_readers_of_the_package_accept_both(whole: CorpusPlan) -> None:
    truth = GroundTruth.parse(ground_truth_text(whole).encode())
    assert set(truth.classes) == set(ACTIONS)
    assert set(truth.subset("test").videos) == {v.name for v in whole.videos if v.subset == "test"}
    clicks = Clicks.parse(clicks_text(whole).encode())
    for video in whole.videos:
        times = tuple(click.start_seconds for click in clicks.of(video.name))
        assert times == video.click_seconds
