"""TV-L1 as a network: near OpenCV's on real clips, and the same as ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from backtal.flow import flow_fields
from backtal.manifest import ClipPlan
from backtal.runtime import PROVIDERS, session_options
from backtal.video import VideoLimits, open_video
from backtal_export.flow.tvl1 import Tvl1, Tvl1Settings
from backtal_export.flow.tvl1_onnx import tvl1_onnx
from tests.requirements import shared_folder
from tests.unit.test_flow import moving

SMALL = Tvl1Settings(num_scales=2, num_warps=1, num_inner=10)


def by_torch(frames: np.ndarray, settings: Tvl1Settings | None = None) -> np.ndarray:
    with torch.inference_mode():
        return Tvl1(frames.shape[1], settings)(torch.from_numpy(frames)).numpy()


def end_point_errors(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(ours - theirs, axis=-1)


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


@pytest.mark.parametrize("name", ["anet_v_GGSY1Qvo990.mp4", "mmaction2_basketball.mp4"])
def test_it_is_near_opencv_on_real_clips(name: str) -> None:
    plan = ClipPlan(short_side_pixels=80, crop_pixels=80)
    video = open_video(shared_folder() / "media/clips" / name, VideoLimits())
    try:
        window = next(iter(video.windows(plan, window_frames=40)))
    finally:
        video.close()
    frames = np.ascontiguousarray(window.frames[30:32])
    theirs = flow_fields(frames, "tvl1")
    errors = end_point_errors(by_torch(frames), theirs)
    assert errors.mean() < 0.1
    # Else a flow of nothing would pass.
    assert errors.mean() < 0.25 * np.linalg.norm(theirs, axis=-1).mean()


@pytest.fixture(scope="module")
def model_file() -> bytes:
    return tvl1_onnx(48, SMALL)


@pytest.mark.parametrize("num_fields", [1, 4])
def test_the_graph_answers_as_torch_whatever_the_number_of_frames(
    model_file: bytes, num_fields: int
) -> None:
    import onnxruntime

    frames = moving(num_fields + 1, x=1, y=2)
    session = onnxruntime.InferenceSession(
        model_file, session_options(1), providers=list(PROVIDERS)
    )
    (flow,) = session.run(["flow"], {"frames": frames})
    wanted = by_torch(frames, SMALL)
    assert flow.shape == (num_fields, 48, 48, 2)
    assert np.abs(wanted).mean() > 0.5
    np.testing.assert_allclose(flow, wanted, atol=5e-3)


def test_the_file_is_whole_the_same_twice_and_names_no_file(model_file: bytes) -> None:
    assert model_file == tvl1_onnx(48, SMALL)
    model = onnx.load_from_string(model_file)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    # One loop a warp: its turns are not written out.
    assert kinds.count("Loop") == SMALL.num_scales * SMALL.num_warps * SMALL.num_outer
    assert b".py" not in model_file
