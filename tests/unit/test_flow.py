"""Optical flow as a stage: what OpenCV finds, and which frames of a video it is asked for."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backtal.backbones import BackboneSource, with_flow_of
from backtal.errors import Cancelled, InvalidArgument, MissingDependency
from backtal.features import FloatArray
from backtal.flow import flow_fields, joined, pieces, plan_flow_fields
from backtal.manifest import Backbone, ClipPlan, FlowMethod, Manifest, Network
from backtal.pipeline import Pipeline, Request
from backtal.stages import Clips
from tests.made_videos import steady
from tests.unit.fake_bundle import FEATURE_DIM, PLAN, SHA256, FakeStages, fake_manifest

METHODS: tuple[FlowMethod, ...] = ("dis", "tvl1")


def moving(num_frames: int, x: int, y: int, size: int = 48) -> NDArray[np.uint8]:
    """A smooth random texture that moves by (x, y) pixels a frame."""
    random = np.random.default_rng(0).uniform(0, 255, (size * 2 // 8, size * 2 // 8))
    texture = random.repeat(8, axis=0).repeat(8, axis=1)
    for axis in (0, 1):
        for _ in range(3):
            texture = (np.roll(texture, 2, axis) + texture + np.roll(texture, -2, axis)) / 3
    frames = [np.roll(texture, (i * y, i * x), (0, 1))[:size, :size] for i in range(num_frames)]
    return np.stack(frames)[..., None].repeat(3, axis=3).astype(np.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_flow_is_the_motion_in_pixels_x_then_y(method: FlowMethod) -> None:
    flow = flow_fields(moving(3, x=2, y=-1), method)
    assert flow.shape == (2, 48, 48, 2)
    assert flow.dtype == np.float32
    inner = flow[:, 16:-16, 16:-16]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1, 2)), [2, -1], atol=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_flow_of_each_pair_is_its_own_and_the_same_twice(method: FlowMethod) -> None:
    frames = moving(4, x=1, y=1, size=32)
    frames[2] = frames[1]
    flow = flow_fields(frames, method)
    np.testing.assert_array_equal(flow[1:], flow_fields(frames[1:], method))
    np.testing.assert_allclose(flow[1], 0, atol=0.05)
    assert np.abs(flow[0]).mean() > 0.5


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(2, x=1, y=0)
    with pytest.raises(InvalidArgument, match=r"clip_plan\.flow"):
        plan_flow_fields(frames, ClipPlan())
    np.testing.assert_array_equal(
        plan_flow_fields(frames, ClipPlan(flow="dis")), flow_fields(frames, "dis")
    )
    with pytest.raises(InvalidArgument, match="flow is tvl1-network: the backbone finds the flow"):
        plan_flow_fields(frames, ClipPlan(flow="tvl1-network"))
    without_contrib = SimpleNamespace(cvtColor=lambda frame, _: frame, COLOR_RGB2GRAY=0)
    monkeypatch.setitem(sys.modules, "cv2", without_contrib)
    with pytest.raises(MissingDependency, match=r"no TV-L1 flow.*backtal\[flow\]"):
        flow_fields(frames, "tvl1")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependency, match=r"OpenCV.*not installed.*backtal\[flow\]"):
        flow_fields(frames, "dis")


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 6))
def test_a_row_holds_the_frames_of_every_clip_once(length: int, stride: int, num: int) -> None:
    plan = ClipPlan(frames_per_clip=length, stride_frames=stride, flow="dis")
    ticks = np.arange(num)[:, None] * stride + np.arange(length + 1)
    row = joined(ticks.astype(np.uint8)[:, :, None, None, None], plan)
    if stride > length:
        assert row is None
        return
    assert row is not None
    np.testing.assert_array_equal(row.ravel(), np.arange((num - 1) * stride + length + 1))
    parts = pieces(row, length)
    assert max(len(part) for part in parts) <= length + 1
    pairs = [(a, b) for part in parts for a, b in zip(part.ravel(), part.ravel()[1:], strict=False)]
    assert pairs == [(i, i + 1) for i in range(len(row) - 1)]


def two_streams(stride_frames: int, flow_by: FlowMethod = "dis") -> Manifest:
    """The fake bundle with a flow stream below the colours."""
    plan = PLAN.model_copy(update={"stride_frames": stride_frames, "flow": flow_by})
    manifest = fake_manifest(plan=PLAN)
    (rgb,) = manifest.description.backbones
    flow = Backbone(name="fake-flow", stream="flow", sha256=SHA256, feature_dim=FEATURE_DIM)
    description = manifest.description.model_copy(
        update={"backbones": (rgb, flow), "clip_plan": plan}
    )
    networks = {**manifest.backbones, "flow": Network(model="fake-flow-net", sha256=SHA256)}
    return manifest.model_copy(update={"description": description, "backbones": networks})


@pytest.mark.parametrize("stride_frames", [2, 4, 5, 7])
def test_a_video_has_its_flow_below_its_colours(stride_frames: int) -> None:
    stages = FakeStages()
    answer = Pipeline(two_streams(stride_frames), stages).run(Request(video=steady(45)))
    features = answer.features
    assert features.streams == ("rgb", "flow")
    assert features.values.shape[0] == 2 * FEATURE_DIM
    # Each frame is 5 grey levels lighter: within the video that is all the flow there is.
    np.testing.assert_allclose(features.values[4:6, :-2], 5, atol=1.1)
    np.testing.assert_allclose(features.values[6:, :-2], 5, atol=2)
    last_tick = (features.num_clips - 1) * stride_frames + PLAN.frames_per_clip
    # Beyond the video the last frame is there again.
    assert (features.values[7, -1] == 0) == (last_tick > 44)
    assert "flow" in answer.stage_seconds
    if stride_frames == 2:
        # 4 clips of 4 fields, 2 apart: 10 fields a batch, computed once, 4 at a time.
        assert stages.flow_lengths[:3] == [4, 4, 2]


@pytest.mark.parametrize("stride_frames", [2, 7])
def test_the_colours_are_what_they_are_without_flow(stride_frames: int) -> None:
    video = steady(45)
    plan = PLAN.model_copy(update={"stride_frames": stride_frames})
    alone = Pipeline(fake_manifest(plan=plan), FakeStages()).run(Request(video=video))
    both = Pipeline(two_streams(stride_frames), FakeStages()).run(Request(video=video))
    np.testing.assert_array_equal(both.features.values[:FEATURE_DIM], alone.features.values)


class FindsFlow(FakeStages):
    """A flow backbone that is handed frames, and finds the flow that is handed to the fake one."""

    def features(self, stream: str, clips: Clips) -> FloatArray:
        if stream == "flow":
            assert clips.dtype == np.uint8
            assert clips.shape[1:] == (PLAN.frames_per_clip + 1, 24, 24, 3)
            clips = np.stack([FakeStages().flow_fields(clip) for clip in clips])
        return super().features(stream, clips)

    def flow_fields(self, frames: NDArray[np.uint8]) -> FloatArray:
        raise AssertionError("no flow is to be found outside the network")


@pytest.mark.parametrize("stride_frames", [2, 4, 5, 7])
def test_a_network_that_finds_flow_is_handed_the_frames_that_flow_is_found_of(
    stride_frames: int,
) -> None:
    video = steady(45)
    handed = Pipeline(two_streams(stride_frames), FakeStages()).run(Request(video=video)).features
    manifest = two_streams(stride_frames, "tvl1-network")
    found = Pipeline(manifest, FindsFlow()).run(Request(video=video)).features
    # The same clips at the same times, the last one's standing frame among them.
    np.testing.assert_array_equal(found.values, handed.values)
    np.testing.assert_array_equal(found.clip_start_seconds, handed.clip_start_seconds)
    np.testing.assert_array_equal(found.clip_end_seconds, handed.clip_end_seconds)
    assert found.provenance.clip_plan.flow == "tvl1-network"


def test_a_cancelled_run_stops_within_a_clips_flow() -> None:
    stages = FakeStages()
    with pytest.raises(Cancelled):
        Pipeline(two_streams(2), stages).run(
            Request(video=steady(45)), is_cancelled=lambda: len(stages.flow_lengths) == 2
        )
    assert stages.flow_lengths == [4, 4]


def test_flow_without_a_backbone_that_takes_it_is_refused() -> None:
    plan = PLAN.model_copy(update={"flow": "dis"})
    with pytest.raises(ValueError, match="clip_plan.flow is dis, but no backbone takes flow"):
        fake_manifest(plan=plan)


def flow_source(*, finds_flow: bool) -> BackboneSource:
    return BackboneSource("x", "flow", 1, lambda weights, say: b"", finds_flow=finds_flow)


def test_a_plan_gets_a_flow_that_suits_the_backbone_and_another_is_refused() -> None:
    handed, finds = flow_source(finds_flow=False), flow_source(finds_flow=True)
    assert with_flow_of(handed, ClipPlan()).flow == "tvl1"
    assert with_flow_of(handed, ClipPlan(flow="dis")).flow == "dis"
    assert with_flow_of(finds, ClipPlan()).flow == "tvl1-network"
    with pytest.raises(InvalidArgument, match="'dis', .* x finds flow itself: allowed is tvl1-net"):
        with_flow_of(finds, ClipPlan(flow="dis"))
    with pytest.raises(InvalidArgument, match="x is handed flow: allowed is tvl1 or dis"):
        with_flow_of(handed, ClipPlan(flow="tvl1-network"))


def test_a_plan_says_what_a_backbone_is_handed() -> None:
    plan = ClipPlan(crop_pixels=32, short_side_pixels=32, flow="dis")
    assert plan.clip_shape("rgb") == (16, 32, 32, 3)
    assert plan.clip_shape("flow") == (16, 32, 32, 2)
    found = plan.model_copy(update={"flow": "tvl1-network"})
    assert found.clip_shape("rgb") == (16, 32, 32, 3)
    assert found.clip_shape("flow") == (17, 32, 32, 3)
