"""`backtal evaluate --from`: anybody's file of results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from backtal.commands import evaluate
from backtal.errors import InvalidArgument


def _run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    evaluate.configure(parser)
    return evaluate.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A ground truth of two videos, and results of the first and of a third."""
    video = {"subset": "test", "duration": 50, "annotations": []}
    instances = [{"segment": [0, 10], "label": "run"}, {"segment": [20, 30], "label": "jump"}]
    truth = {"database": {"a": {**video, "annotations": instances}, "b": video}}
    results = {
        "results": {
            "a": [
                {"label": "run", "score": 0.9, "segment": [0, 9]},
                {"label": "jump", "score": 0.8, "segment": [24, 34]},
            ],
            "c": [{"label": "run", "score": 0.95, "segment": [0, 9]}],
        }
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path / "truth.json", tmp_path / "results.json"


def _figures(files: tuple[Path, Path], *words: object) -> dict[str, Any]:
    target = files[0].with_name("figures.json")
    truth, results = files
    assert _run("--ground-truth", truth, "--from", results, *words, "--json", target) == 0
    figures: dict[str, Any] = json.loads(target.read_text())
    return figures


LENIENT = ("--missing-as-empty", "--extra-as-wrong")


def test_videos_that_do_not_fit_are_an_error_or_named(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidArgument, match="1 videos that .* does not have: c"):
        _figures(files, "--missing-as-empty")
    with pytest.raises(InvalidArgument, match="no detections for 1 of 2 videos .*: b"):
        _figures(files, "--extra-as-wrong")
    figures = _figures(files, *LENIENT, "--tiou", 0.5)
    assert (figures["missing_videos"], figures["extra_videos"]) == (["b"], ["c"])
    # The detection of the unknown video is the surest: it halves its class's precision.
    assert figures["class_average_precision"] == {"jump": [0.0], "run": [0.5]}
    told = capsys.readouterr().out
    assert "no detections for 1 videos, counted as empty: b" in told
    assert "the ground truth lacks 1 videos, their detections are wrong: c" in told


def test_ranges_of_tious_and_their_means(files: tuple[Path, Path]) -> None:
    words = ("--tiou", "0.3:0.7:0.1", "0.9", "--average", "0.3:0.4", "0.5:0.9")
    figures = _figures(files, *LENIENT, *words)
    assert figures["tiou"] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.9]
    by_tiou = figures["mean_average_precision"]
    assert figures["averages"]["0.3:0.4"] == pytest.approx(sum(by_tiou[:2]) / 2)
    assert figures["averages"]["0.5:0.9"] == pytest.approx(sum(by_tiou[2:]) / 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tiou", "0.7:0.3:0.1"), "--tiou 0.7:0.3:0.1; allowed are"),
        (("--tiou", "0.1:0.2:0"), "allowed are a number and FROM:TO:STEP"),
        (("--tiou", "0.1:0.9:1e-9"), "thresholds; at most 1000"),
        (("--tiou", "x"), "'x' is no tIoU"),
        (("--tiou", "0"), "a tIoU of 0.0; it must be"),
        (("--average", "0.3"), "--average 0.3; it must be FROM:TO"),
        (("--average", "0.95:0.99"), "no mAP at a tIoU from 0.95 to 0.99"),
        (("--analysis", "--analysis-tiou", "0.05"), "they must rise"),
    ],
)
def test_wrong_options_are_named(
    files: tuple[Path, Path], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        _figures(files, *LENIENT, *words)


def test_the_analysis_is_a_table_json_and_pictures(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = _figures(files, *LENIENT, "--charts", tmp_path / "charts", "--per-class")
    counts = figures["diagnosis"]["counts"]["10"]
    assert (counts["true_positive"], counts["localization"], counts["background"]) == (1, 1, 1)
    assert figures["reliability"]["num_detections"] == 3
    assert {path.name for path in (tmp_path / "charts").iterdir()} == {
        "errors.svg",
        "reliability.svg",
        "sensitivity.svg",
    }
    told = capsys.readouterr().out
    for words in ("localization", "Sensitivity", "Expected calibration error", "jump"):
        assert words in told
