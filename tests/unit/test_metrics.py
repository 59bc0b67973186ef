"""The list of metrics, what answers add to them, and how expositions become one."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from backtal.errors import (
    BacktalError,
    DecoderUnavailable,
    InvalidArgument,
    InvalidVideo,
    LimitExceeded,
    Unavailable,
)
from backtal.features import FeatureSequence
from backtal.localization import WindowedLocalizer, num_windows
from backtal.localization.settings import LocalizationSettings
from backtal.pipeline import Answer, Pipeline, Request
from backtal_serving.door.outcomes import Counted, Outcomes
from backtal_serving.metrics import definitions as metrics
from backtal_serving.metrics.definitions import DOOR, PIPELINE, SUPERVISOR
from backtal_serving.metrics.exposition import merged
from backtal_serving.metrics.observations import of_answer, of_failure
from backtal_serving.metrics.page import page
from backtal_serving.metrics.supervision import SupervisionMetrics
from tests.made_videos import steady
from tests.requirements import PROJECT_ROOT
from tests.unit.fake_bundle import FEATURE_DIM, FakeStages, fake_manifest

DESCRIPTION = fake_manifest().description
SUFFIXES = {"counter": ("_total",), "histogram": ("_seconds", "_bytes")}


@pytest.fixture(scope="module")
def answered() -> tuple[Answer, Request]:
    request = Request(video=steady(45))
    return Pipeline(fake_manifest(), FakeStages()).run(request), request


def added(answer: Answer, request: Request) -> dict[tuple[str, ...], float]:
    """What the answer adds, by metric and labels."""
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for found in of_answer(answer, request, DESCRIPTION):
        key = (found.metric.name, *found.labels)
        sums[key] += found.value
    return sums


def test_the_page_is_that_of_the_code() -> None:
    assert (PROJECT_ROOT / "docs" / "metrics.md").read_text() == page()


@pytest.mark.parametrize("metric", {*DOOR, *PIPELINE, *SUPERVISOR}, ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric: metrics.Metric) -> None:
    assert re.fullmatch(r"backtal_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith(SUFFIXES.get(metric.kind, ""))
    assert metric.kind == "counter" or not metric.name.endswith("_total")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.help.endswith(".") or metric is metrics.BUILD_INFO


def test_a_video_adds_what_was_computed(answered: tuple[Answer, Request]) -> None:
    answer, request = answered
    sums = added(answer, request)
    assert sums["backtal_video_seconds_total",] == pytest.approx(1.8)
    assert sums["backtal_input_seconds",] == pytest.approx(1.8)
    assert sums["backtal_frames_total",] == 45
    assert answer.features is not None
    assert sums["backtal_clips_total",] == answer.features.num_clips
    assert sums["backtal_windows_total",] == 2
    assert request.video is not None
    assert sums["backtal_input_bytes",] == len(request.video)
    assert sums["backtal_inputs_total", "h264"] == 1
    for stage, seconds in answer.stage_seconds.items():
        assert sums["backtal_stage_seconds", stage] == seconds
    for label in DESCRIPTION.classes:
        scores = [segment.score for segment in answer.segments if segment.label == label]
        assert sums["backtal_segments_total", label] == len(scores)
        assert sums["backtal_segment_scores_total", label] == pytest.approx(sum(scores))


def test_features_add_no_frames_and_no_clips() -> None:
    values = np.random.default_rng(4).normal(size=(FEATURE_DIM, 30)).astype(np.float32)
    request = Request(features=FeatureSequence.from_equal_parts(values, 2.4))
    answer = Pipeline(fake_manifest(), FakeStages()).run(request)
    sums = added(answer, request)
    assert sums["backtal_inputs_total", "features"] == 1
    assert sums["backtal_input_bytes",] == values.nbytes
    names = {name for name, *_ in sums}
    assert not names & {"backtal_frames_total", "backtal_clips_total"}
    stages = {labels[0] for name, *labels in sums if name == "backtal_stage_seconds"}
    assert stages == {"cas", "localize", "total"}


@pytest.mark.parametrize(
    ("codec", "counted"), [("libdav1d", "av1"), ("hevc", "hevc"), ("made up", "other")]
)
def test_codecs_are_of_a_fixed_list(
    answered: tuple[Answer, Request], codec: str, counted: str
) -> None:
    answer, request = answered
    assert answer.video is not None
    told = replace(answer, video=replace(answer.video, codec=codec))
    assert added(told, request)["backtal_inputs_total", counted] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidVideo("x", problem="damaged"), "damaged"),
        (LimitExceeded("x"), "limit"),
        (DecoderUnavailable("x"), "decoder_unavailable"),
        (Unavailable("the service is full"), None),
        (InvalidArgument("nms is 7"), None),
    ],
)
def test_a_failure_is_counted_where_the_video_is_the_reason(
    error: BacktalError, reason: str | None
) -> None:
    found = [one.labels for one in of_failure(error, Request(video=b"x"))]
    assert found == ([] if reason is None else [(reason,)])
    assert reason is None or reason in metrics.REASONS
    values = np.zeros((FEATURE_DIM, 3), np.float32)
    features = Request(features=FeatureSequence.from_equal_parts(values, 1.0))
    assert list(of_failure(error, features)) == []


@given(num_positions=st.integers(1, 200), window_positions=st.integers(2, 33))
def test_windows_are_those_that_the_localizer_scores(
    num_positions: int, window_positions: int
) -> None:
    description = fake_manifest(window_positions=window_positions).description
    localizer = WindowedLocalizer(description)
    cas = np.zeros((2, num_positions), np.float32)
    with mock.patch.object(localizer, "_take_window", wraps=localizer._take_window) as taken:
        localizer.push(cas, np.zeros(num_positions, np.float32))
        localizer.finish(num_positions * 0.08)
    assert num_windows(num_positions, description) == taken.call_count


def test_the_released_preset_has_one_window() -> None:
    settings = LocalizationSettings(preset="released")
    description = fake_manifest(localization=settings).description
    assert num_windows(16, description) == 1


def test_one_exposition_of_several_has_each_family_once() -> None:
    ours = (
        '# HELP backtal_x_total Ours.\n# TYPE backtal_x_total counter\nbacktal_x_total{a="1"} 1\n'
    )
    theirs = (
        "# HELP nv_y Y\n# TYPE nv_y gauge\nnv_y 2\n"
        "# HELP backtal_x_total Theirs.\n# TYPE backtal_x_total counter\n"
        'backtal_x_total{a="2 # HELP"} 3\n'
        "# HELP go_info G\n# TYPE go_info gauge\ngo_info 1\n"
    )
    text = merged([ours, theirs])
    assert text.count("# TYPE backtal_x_total counter") == 1
    assert "Theirs" not in text
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found == {
        ("backtal_x_total", "1"): 1,
        ("backtal_x_total", "2 # HELP"): 3,
        ("nv_y",): 2,
    }


def test_an_exposition_alone_stays_what_it_is() -> None:
    from prometheus_client import generate_latest

    outcomes = Outcomes()
    with outcomes.count(Counted("grpc", bundle='a "quoted"\nname')):
        pass
    text = generate_latest(outcomes.registry).decode()
    assert merged([text]) == text


def test_every_outcome_is_counted_once() -> None:
    outcomes = Outcomes()

    def refuse() -> None:
        with outcomes.count(Counted("grpc", bundle="tiny")):
            raise InvalidVideo("x")

    with pytest.raises(InvalidVideo):
        refuse()
    with pytest.raises(ZeroDivisionError), outcomes.count(Counted("http")):
        raise ZeroDivisionError
    with outcomes.count(Counted("http", is_detection=False)):
        pass
    outcomes.refused(InvalidArgument("x"), "http", is_detection=True)

    def value(name: str, **labels: str) -> float | None:
        return outcomes.registry.get_sample_value(name, labels)

    name = "backtal_requests_total"
    assert value(name, code="INVALID_ARGUMENT", entry="grpc", bundle="tiny") == 1
    assert value(name, code="INTERNAL", entry="http", bundle="") == 1
    assert value(name, code="INVALID_ARGUMENT", entry="http", bundle="") == 1
    assert value("backtal_other_requests_total", code="OK", entry="http") == 1
    assert value("backtal_request_seconds_count", entry="http", bundle="") == 2
    assert value("backtal_requests_in_flight") == 0


def test_the_supervisor_leaves_its_figures_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "supervisor.prom"
    told = SupervisionMetrics(file)
    told.started("2.51.0", ("tiny",))
    told.child_restarted("model")
    told.canary_answered("tiny", 0.02)
    told.canary_failed("tiny")
    text = file.read_text()
    assert 'backtal_children_restarted_total{child="model"} 1.0' in text
    assert 'backtal_children_restarted_total{child="door"} 0.0' in text
    assert 'backtal_canary_failures_total{bundle="tiny"} 1.0' in text
    assert 'triton="2.51.0"' in text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names == {metric.name.removesuffix("_total") for metric in SUPERVISOR}
    assert [path.name for path in tmp_path.iterdir()] == ["supervisor.prom"]


def test_a_folder_that_is_gone_does_not_end_the_supervisor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SupervisionMetrics(tmp_path / "gone" / "supervisor.prom").child_restarted("triton")
    assert "metrics_not_written" in capsys.readouterr().err
