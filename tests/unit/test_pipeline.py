from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import extraction
from backtal.clips import clip_times
from backtal.errors import Cancelled, Internal, InvalidArgument, InvalidVideo, LimitExceeded
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.localization.presets import THUMOS14
from backtal.localization.settings import LocalizationSettings
from backtal.pipeline import CLIPS_PER_BATCH, Pipeline, Progress, Request, chunked_cas
from backtal.stages import CasOutput
from backtal.video import VideoLimits
from tests.integration.videos import moving_colours
from tests.made_videos import steady
from tests.unit.fake_bundle import CLASSES, FEATURE_DIM, PLAN, SHA256, FakeStages, fake_manifest


@pytest.fixture(scope="module")
def video() -> bytes:
    return steady(45)


@pytest.fixture
def stages() -> FakeStages:
    return FakeStages()


@pytest.fixture
def pipeline(stages: FakeStages) -> Pipeline:
    return Pipeline(fake_manifest(), stages)


def some_features(num_clips: int = 30, dim: int = FEATURE_DIM) -> FeatureSequence:
    values = np.random.default_rng(4).normal(size=(dim, num_clips)).astype(np.float32)
    return FeatureSequence.from_equal_parts(values, num_clips * 0.08)


def test_a_video_becomes_an_answer(pipeline: Pipeline, stages: FakeStages, video: bytes) -> None:
    answer = pipeline.run(Request(video=video))
    assert answer.duration_seconds == pytest.approx(1.8)
    assert answer.num_frames_decoded == 45
    assert answer.video is not None
    assert (answer.video.num_frames, answer.video.frames_per_second) == (45, 25.0)
    start, end = clip_times(PLAN, 1.8)
    np.testing.assert_array_equal(answer.features.clip_start_seconds, start)
    np.testing.assert_allclose(answer.features.clip_end_seconds, end)
    assert answer.features.values.shape == (FEATURE_DIM, len(start))
    # 1.8 s in positions of 0.08 s.
    assert answer.cas.shape == (2, 22)
    np.testing.assert_allclose(answer.position_seconds_middle, (np.arange(22) + 0.5) * 0.08)
    assert set(answer.stage_seconds) == {"decode", "rgb", "cas", "localize", "total"}
    assert answer.warnings == ()
    assert answer.bundle_name == "fake"
    assert answer.bundle_sha256 == fake_manifest().sha256
    assert answer.segments
    assert {segment.label for segment in answer.segments} <= set(CLASSES)
    scores = [segment.score for segment in answer.segments]
    assert scores == sorted(scores, reverse=True)
    provenance = answer.features.provenance
    assert provenance.backbone_sha256 == (SHA256,)
    assert (provenance.decoder, provenance.precision) == ("pyav", "float32")
    assert provenance.clip_plan == PLAN


@pytest.mark.parametrize("preset_windows", [3, 16])
def test_what_is_not_kept_changes_nothing(video: bytes, preset_windows: int) -> None:
    stages = FakeStages()
    pipeline = Pipeline(fake_manifest(window_positions=preset_windows), stages)
    whole = pipeline.run(Request(video=video))
    stages.batch_sizes.clear()
    streamed = pipeline.run(Request(video=video), keep=("cas",))
    assert streamed.features is None
    np.testing.assert_array_equal(streamed.cas, whole.cas)
    np.testing.assert_array_equal(streamed.position_seconds_middle, whole.position_seconds_middle)
    bare = pipeline.run(Request(video=video), keep=())
    assert bare.cas is None
    for answer in (streamed, bare):
        assert answer.segments == whole.segments
        assert answer.feature_provenance == whole.feature_provenance
        assert answer.num_frames_decoded == 45
        assert set(answer.stage_seconds) == set(whole.stage_seconds)


def test_segments_are_told_as_they_become_final() -> None:
    class Blocks(FakeStages):
        """Every second stretch of 20 clips is an action."""

        def features(self, stream: str, clips: np.ndarray) -> np.ndarray:
            first = sum(self.batch_sizes)
            values = super().features(stream, clips)
            is_on = (np.arange(first, first + len(clips)) // 20) % 2
            values[:, 0], values[:, 3] = 100.0 * is_on, 50.0
            return values

    video = moving_colours(20.0)
    stages = Blocks()
    pipeline = Pipeline(fake_manifest(window_positions=16), stages)
    told: list[Progress] = []
    answer = pipeline.run(Request(video=video), on_progress=told.append, keep=("cas",))
    early = [(p.done_seconds, s) for p in told for s in p.segments]
    assert early
    assert len({segment for _, segment in early}) == len(early)
    assert {segment for _, segment in early} <= set(answer.segments)
    assert all(segment.end_seconds < done_seconds for done_seconds, segment in early)
    assert early[0][0] < answer.duration_seconds - 10
    # With the features, or in a bundle that has no windows, all comes with the answer.
    for other, keep in (
        (pipeline, ("features",)),
        (Pipeline(fake_manifest(localization=THUMOS14), stages), ()),
    ):
        told.clear()
        stages.batch_sizes.clear()
        other.run(Request(video=video), on_progress=told.append, keep=keep)
        assert not any(p.segments for p in told)


def test_a_stream_of_the_wrong_shape_is_a_bug_of_ours(video: bytes) -> None:
    class Narrow(FakeStages):
        def cas(self, features: np.ndarray) -> CasOutput:
            output = super().cas(features)
            return CasOutput(output.cas[:, :1], output.magnitude)

    with pytest.raises(Internal, match="fake-cas gave a CAS"):
        Pipeline(fake_manifest(), Narrow()).run(Request(video=video), keep=())


def test_the_features_are_of_the_frames_on_show(pipeline: Pipeline, video: bytes) -> None:
    features = pipeline.run(Request(video=video)).features
    # The last feature is the clip's first frame: every second frame, 5 grey levels apart.
    np.testing.assert_allclose(features.values[3], 10 + 10 * np.arange(22), atol=2)


def test_clips_come_in_batches_from_the_start_whatever_the_windows(
    stages: FakeStages, video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for window_frames in (1, 7, 64):
        monkeypatch.setattr(extraction, "WINDOW_FRAMES", window_frames)
        stages.batch_sizes.clear()
        answers.append(Pipeline(fake_manifest(), stages).run(Request(video=video)))
        assert stages.batch_sizes == [CLIPS_PER_BATCH] * 5 + [2]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer.features.values, answers[0].features.values)
        np.testing.assert_array_equal(answer.cas, answers[0].cas)
        assert answer.segments == answers[0].segments


def test_a_path_bytes_and_their_features_give_the_same(
    pipeline: Pipeline, video: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(video)
    by_bytes = pipeline.run(Request(video=video))
    by_path = pipeline.run(Request(path=path))
    by_bytes.features.save(tmp_path / "video.npz")
    again = FeatureSequence.load(tmp_path / "video.npz")
    by_features = pipeline.run(Request(features=again))
    for answer in (by_path, by_features):
        np.testing.assert_array_equal(answer.cas, by_bytes.cas)
        assert answer.segments == by_bytes.segments
        assert answer.num_frames_decoded == 45


@given(
    st.integers(1, 60),
    st.integers(1, 25),
    st.integers(2, 6),
)
def test_the_chunked_cas_is_that_of_the_whole(length: int, chunk: int, halo: int) -> None:
    features = np.random.default_rng(length).normal(size=(FEATURE_DIM, length)).astype(np.float32)
    whole = FakeStages().cas(features[None])
    chunked = chunked_cas(FakeStages(), features, halo_positions=halo, chunk_positions=chunk)
    assert whole.magnitude is not None
    assert chunked.magnitude is not None
    np.testing.assert_array_equal(chunked.cas, whole.cas)
    np.testing.assert_array_equal(chunked.magnitude, whole.magnitude)


def test_a_halo_that_is_too_small_would_show() -> None:
    features = np.random.default_rng(1).normal(size=(FEATURE_DIM, 20)).astype(np.float32)
    whole = FakeStages().cas(features[None])
    chunked = chunked_cas(FakeStages(), features, halo_positions=1, chunk_positions=7)
    assert np.abs(chunked.cas - whole.cas).max() > 0.1


def test_chunks_do_not_grow_with_the_video(stages: FakeStages) -> None:
    features = np.ones((FEATURE_DIM, 5000), np.float32)
    chunked_cas(stages, features, halo_positions=4)
    assert max(stages.chunk_lengths) == 512 + 8


def test_the_released_preset_resizes_the_whole_video(stages: FakeStages) -> None:
    settings = LocalizationSettings(preset="released", class_score_threshold=0.0)
    pipeline = Pipeline(fake_manifest(window_positions=16, localization=settings), stages)
    answer = pipeline.run(Request(features=some_features(30)))
    assert answer.cas.shape == (2, 16)
    assert answer.position_seconds_middle[-1] == pytest.approx(2.4 * 15.5 / 16)


def test_a_request_narrows_its_answer_down(pipeline: Pipeline, video: bytes) -> None:
    every = pipeline.run(Request(video=video)).segments
    of_class = pipeline.run(Request(video=video, classes=("jump",))).segments
    assert of_class
    assert of_class == tuple(segment for segment in every if segment.label == "jump")
    assert pipeline.run(Request(video=video, max_segments=1)).segments == every[:1]
    least = every[0].score
    above = pipeline.run(Request(video=video, score_threshold=least)).segments
    assert above == tuple(segment for segment in every if segment.score >= least)


def test_progress_rises_to_the_end(pipeline: Pipeline, video: bytes) -> None:
    told: list[Progress] = []
    pipeline.run(Request(video=video), on_progress=told.append)
    done = [progress.done_seconds for progress in told]
    assert len(told) == 7
    assert done == sorted(done)
    assert told[-1].done_seconds == told[-1].total_seconds == pytest.approx(1.8)
    assert [progress.total_seconds for progress in told] == pytest.approx([1.8] * 7)


def test_a_cancelled_run_stops_within_a_batch(
    pipeline: Pipeline, stages: FakeStages, video: bytes
) -> None:
    with pytest.raises(Cancelled):
        pipeline.run(Request(video=video), is_cancelled=lambda: len(stages.batch_sizes) >= 2)
    assert len(stages.batch_sizes) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "decode"]
    assert pipeline.run(Request(video=video)).segments


def test_a_cancelled_run_over_features_stops_too(pipeline: Pipeline, stages: FakeStages) -> None:
    with pytest.raises(Cancelled):
        pipeline.run(Request(features=some_features()), is_cancelled=lambda: True)
    assert not stages.chunk_lengths


@pytest.mark.parametrize(
    "sources", [{}, {"video": b"x", "path": Path("x")}, {"video": b"x", "features": None}]
)
def test_a_request_has_exactly_one_source(sources: dict[str, object]) -> None:
    if sum(value is not None for value in sources.values()) == 1:
        Request(**sources)  # type: ignore[arg-type]
        return
    with pytest.raises(InvalidArgument, match="give one of video, path, remote, features"):
        Request(**sources)  # type: ignore[arg-type]


def test_a_wrong_choice_is_told_before_the_video_is_decoded(
    pipeline: Pipeline, stages: FakeStages, video: bytes
) -> None:
    with pytest.raises(InvalidArgument, match="'jumpp'; did you mean 'jump'"):
        pipeline.run(Request(video=video, classes=("jumpp",)))
    with pytest.raises(InvalidArgument, match=r"nms is 1\.5"):
        pipeline.run(Request(video=video, nms=1.5))
    assert not stages.batch_sizes


def test_features_of_another_kind_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidArgument, match="7 dimensions, bundle fake takes 4"):
        pipeline.run(Request(features=some_features(dim=7)))
    other = FeatureProvenance(backbone_sha256=("cd" * 32,))
    with pytest.raises(InvalidArgument, match="of the backbone cdcd"):
        pipeline.run(Request(features=replace(some_features(), provenance=other)))
    limited = Pipeline(fake_manifest(), FakeStages(), VideoLimits(max_duration_seconds=1))
    with pytest.raises(LimitExceeded, match=r"features is 2\.40 s long"):
        limited.run(Request(features=some_features()))


def test_a_bundle_with_flow_takes_features_but_no_video(stages: FakeStages, video: bytes) -> None:
    pipeline = Pipeline(fake_manifest(stream="flow"), stages)
    with pytest.raises(InvalidArgument, match=r"'flow'.*send features"):
        pipeline.run(Request(video=video))
    assert pipeline.run(Request(features=some_features())).cas.shape == (2, 30)


def test_a_broken_video_is_an_error_and_the_next_is_answered(
    pipeline: Pipeline, video: bytes
) -> None:
    for broken in (b"", b"text" * 100):
        with pytest.raises(InvalidVideo):
            pipeline.run(Request(video=broken))
    assert pipeline.run(Request(video=video)).segments


def test_a_partial_answer_has_its_warning(pipeline: Pipeline) -> None:
    data = steady(45, movflags="faststart")
    cut = data[: len(data) * 2 // 3]
    with pytest.raises(InvalidVideo, match="allow_partial"):
        pipeline.run(Request(video=cut))
    answer = pipeline.run(Request(video=cut, allow_partial=True))
    assert any("declares 1.80 s" in warning for warning in answer.warnings)
    assert answer.duration_seconds < 1.8


class WrongStages(FakeStages):
    """Networks whose answers have another shape than the manifest says."""

    def cas(self, features: np.ndarray) -> CasOutput:
        return CasOutput(np.zeros((1, 5, features.shape[2]), np.float32))


def test_a_network_of_another_shape_is_a_bug(video: bytes) -> None:
    pipeline = Pipeline(fake_manifest(), WrongStages())
    with pytest.raises(Internal, match=r"fake-cas gave a CAS \[1, 5, 22\], expected \[1, 2, 22\]"):
        pipeline.run(Request(video=video))
