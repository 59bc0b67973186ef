"""TV-L1 as a network: near OpenCV's on real clips, and the same as nodes of an ONNX graph."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from backtal.clips import ClipAssembler
from backtal.flow import flow_fields
from backtal.manifest import ClipPlan
from backtal.runtime import PROVIDERS, session_options
from backtal.video import VideoLimits, open_video
from backtal_export.backbones.i3d import I3D
from backtal_export.backbones.i3d_onnx import i3d_flow_tvl1_onnx
from backtal_export.flow import image_nodes
from backtal_export.flow.ranking import needed_comparators
from backtal_export.flow.tvl1 import Tvl1
from backtal_export.flow.tvl1_onnx import tvl1_onnx
from backtal_export.flow.tvl1_settings import Tvl1Settings
from backtal_export.gates import cosines
from backtal_export.graph_writer import GraphWriter
from backtal_export.onnx_file import facts_of, to_bytes
from tests.i3d_weights import seeded_weights
from tests.requirements import shared_folder
from tests.unit.test_flow import moving

SMALL = Tvl1Settings(num_scales=2, num_warps=2, num_inner=10)
REAL_VIDEOS = ("anet_v_GGSY1Qvo990.mp4", "mmaction2_basketball.mp4")


def by_torch(frames: np.ndarray, settings: Tvl1Settings | None = None) -> np.ndarray:
    with torch.inference_mode():
        return Tvl1(frames.shape[1], settings)(torch.from_numpy(frames)).numpy()


def by_onnx(model_file: bytes, clips: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model_file, session_options(1), providers=list(PROVIDERS)
    )
    return session.run(None, {"clips": clips})[0]


def end_point_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(ours - theirs, axis=-1)


def real_clip(name: str, plan: ClipPlan) -> NDArray[np.uint8]:
    """The third clip of a video of the shared folder, with the frame after it."""
    assembler, clips = ClipAssembler(plan), []
    video = open_video(shared_folder() / "media/clips" / name, VideoLimits())
    try:
        for window in video.windows(plan):
            clips += list(assembler.add(window))
            if len(clips) > 2:
                break
    finally:
        video.close()
    return clips[2]


def test_flow_is_the_motion_in_pixels_x_then_y() -> None:
    flow = by_torch(moving(3, x=2, y=-1))
    np.testing.assert_allclose(
        np.median(flow[:, 16:-16, 16:-16], axis=(0, 1, 2)), [2, -1], atol=0.1
    )


def test_a_still_video_has_next_to_no_flow() -> None:
    # Where nothing is to be seen, the rounding of the warp's coordinates is.
    flow = by_torch(moving(1, x=0, y=0).repeat(2, 0), SMALL)
    assert np.abs(flow).mean() < 0.005
    assert np.abs(flow).max() < 0.1


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_it_is_near_opencv_on_real_clips(name: str) -> None:
    plan = ClipPlan(short_side_pixels=80, crop_pixels=80, flow="tvl1-network")
    frames = real_clip(name, plan)[3:5]
    theirs = flow_fields(frames, "tvl1")
    errors = end_point_errors(by_torch(frames), theirs)
    assert errors.mean() < 0.1
    # Else a flow of nothing would pass.
    assert errors.mean() < 0.25 * np.linalg.norm(theirs, axis=-1).mean()


@pytest.mark.parametrize("num_clips", [1, 3])
@pytest.mark.parametrize("num_fields", [1, 3])
def test_the_graph_answers_as_torch_whatever_the_number_of_clips(
    num_fields: int, num_clips: int
) -> None:
    clips = np.stack([moving(num_fields + 1, x=1, y=step) for step in range(num_clips)])
    flow = by_onnx(tvl1_onnx(num_fields, 48, SMALL), clips)
    wanted = np.stack([by_torch(clip, SMALL) for clip in clips])
    assert flow.shape == (num_clips, num_fields, 48, 48, 2)
    assert np.abs(wanted).mean() > 0.5
    np.testing.assert_allclose(flow, wanted, atol=5e-3)


def test_the_file_is_whole_the_same_twice_and_its_turns_are_loops() -> None:
    model_file = tvl1_onnx(2, 48, SMALL)
    assert model_file == tvl1_onnx(2, 48, SMALL)
    facts_of(model_file)
    graph = onnx.load_from_string(model_file).graph
    loops = [node for node in graph.node if node.op_type == "Loop"]
    assert len(loops) == SMALL.num_scales
    for loop in loops:
        kinds = [node.op_type for node in loop.attribute[0].g.node]
        assert kinds.count("Loop") == SMALL.num_outer


def test_what_stands_before_i3d_is_what_checkpoints_were_trained_on() -> None:
    # A checkpoint names i3d-flow-tvl1 by its hash: another TV-L1 gets another name.
    assert hashlib.sha256(tvl1_onnx()).hexdigest() == (
        "e7c55f301d2fa3d054903673901dc94c567f25c3da190b6285779cb98af2e555"
    )


@given(st.integers(1, 16), st.data())
def test_the_comparators_that_are_kept_find_the_ranks(count: int, data: st.DataObject) -> None:
    ranks = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    values = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    places = list(values)
    for low, high in needed_comparators(count, ranks):
        places[low], places[high] = sorted((places[low], places[high]))
    for rank in ranks:
        assert places[rank] == sorted(values)[rank]


@pytest.mark.parametrize("side", [3, 5])
def test_the_median_is_the_middle_of_each_pixels_square(side: int) -> None:
    graph, size = GraphWriter(), 7
    graph.node("Identity", [image_nodes.median(graph, "clips", side, size)], output="median")
    shape = ["M", 2, size, size]
    image, median = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("clips", "median")
    )
    model_file = to_bytes(
        helper.make_graph(graph.nodes, "median", [image], [median], graph.initializers)
    )
    values = np.random.default_rng(1).normal(size=(3, 2, size, size)).astype(np.float32)
    reach = side // 2
    around = np.pad(values, ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
    squares = np.lib.stride_tricks.sliding_window_view(around, (side, side), axis=(2, 3))
    np.testing.assert_array_equal(by_onnx(model_file, values), np.median(squares, axis=(4, 5)))


def test_i3d_with_its_flow_answers_as_torch_one_after_the_other() -> None:
    plan = ClipPlan(crop_pixels=32, short_side_pixels=32)
    model_file = i3d_flow_tvl1_onnx(seeded_weights(2), plan, SMALL)
    (clips_shape,) = facts_of(model_file).inputs
    assert clips_shape.shape == ("N", 17, 32, 32, 3)
    clips = np.stack([moving(17, x=1, y=step, size=32) for step in range(3)])
    flow = np.stack([by_torch(clip, SMALL) for clip in clips])
    with torch.inference_mode():
        network = I3D.from_weights(seeded_weights(2), input_channels=2)
        wanted = network(torch.from_numpy(flow)).numpy()
    for num_clips in (1, 3):
        found = by_onnx(model_file, clips[:num_clips])
        np.testing.assert_allclose(found, wanted[:num_clips], atol=1e-3 * np.abs(wanted).max())


def cosine_to_opencv(name: str, plan: ClipPlan) -> float:
    """Of what a real clip's flow adds to I3D's features: the network's flow against OpenCV's.

    Features of a still clip are taken off: with seeded weights they are nearly all that there is.
    """
    clip = real_clip(name, plan)
    ours = by_onnx(i3d_flow_tvl1_onnx(seeded_weights(2), plan), clip[None])
    network = I3D.from_weights(seeded_weights(2), input_channels=2)
    flow = torch.from_numpy(flow_fields(clip, "tvl1")[None])
    with torch.inference_mode():
        theirs, still = network(flow).numpy(), network(torch.zeros_like(flow)).numpy()
    return float(cosines(ours - still, theirs - still)[0])


def test_features_are_those_of_opencvs_flow_on_a_real_clip() -> None:
    plan = ClipPlan(short_side_pixels=64, crop_pixels=64, flow="tvl1-network")
    assert cosine_to_opencv(REAL_VIDEOS[0], plan) > 0.99


@pytest.mark.long
@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_features_are_those_of_opencvs_flow_at_full_size(name: str, record_property) -> None:
    cosine = cosine_to_opencv(name, ClipPlan(flow="tvl1-network"))
    record_property("feature_cosine", cosine)
    assert cosine > 0.98
