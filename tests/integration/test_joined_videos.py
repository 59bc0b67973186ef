"""A long video made of ten: what is found in it is what is found in the ten, one by one.

The features, the truth and the network are the demo's, on videos that training never saw. They are
joined as features: no clip crosses from one video into the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.cas_chunks import CAS_CHUNK_POSITIONS
from backtal.evaluation import Detections, mean_average_precision
from backtal.features import FeatureSequence, FloatArray
from backtal.localization import LocalizationSettings
from backtal.localization.presets import THUMOS14
from backtal.manifest import Manifest, Network
from backtal.pipeline import Pipeline, Request
from backtal.stages import CasOutput
from backtal_training import checkpoint
from backtal_training.network import BackTALNetwork

DEMO = Path(__file__).resolve().parents[2] / "demo"
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
VIDEOS_JOINED = 10
MOST_LOST = 0.05


@dataclass(frozen=True, eq=False)
class Trained:
    """The pipeline's `Stages` by the trained network itself; features are sent, not made."""

    network: BackTALNetwork

    def flow_fields(self, frames: object) -> FloatArray:
        raise NotImplementedError

    def features(self, stream: str, clips: object) -> FloatArray:
        raise NotImplementedError

    def cas(self, features: FloatArray) -> CasOutput:
        with torch.inference_mode():
            cas, magnitude = self.network.infer(torch.from_numpy(features))
        return CasOutput(cas.numpy(), magnitude.numpy())


@dataclass(frozen=True, eq=False)
class Video:
    """The features of a video, and the actions in it."""

    features: FeatureSequence
    instances: tuple[Instance, ...]


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    return GroundTruth.load(DEMO / "ground_truth.json").subset("test")


@pytest.fixture(scope="module")
def groups(truth: GroundTruth) -> list[dict[str, Video]]:
    """Three times ten videos of the 36, from the whole of the list."""
    names = list(truth.videos)[: len(truth.videos) // VIDEOS_JOINED * VIDEOS_JOINED]
    num_groups = len(names) // VIDEOS_JOINED
    videos = {
        name: Video(
            FeatureSequence.load(DEMO / f"features/{name}.npz"), truth.videos[name].instances
        )
        for name in names
    }
    return [{name: videos[name] for name in names[i::num_groups]} for i in range(num_groups)]


def joined(videos: Sequence[Video]) -> Video:
    """The videos one after the other."""
    parts = [video.features for video in videos]
    offsets = np.cumsum([0.0, *(part.duration_seconds for part in parts)]).tolist()
    features = replace(
        parts[0],
        values=np.concatenate([part.values for part in parts], axis=1),
        clip_start_seconds=_shifted([part.clip_start_seconds for part in parts], offsets),
        clip_end_seconds=_shifted([part.clip_end_seconds for part in parts], offsets),
        duration_seconds=offsets[-1],
        num_frames_decoded=sum(part.num_frames_decoded for part in parts),
    )
    instances = tuple(
        Instance(one.start_seconds + offset, one.end_seconds + offset, one.label)
        for video, offset in zip(videos, offsets, strict=False)
        for one in video.instances
    )
    return Video(features, instances)


def _shifted(times: Sequence[FloatArray], offsets: Sequence[float]) -> FloatArray:
    moved = [part + offset for part, offset in zip(times, offsets, strict=False)]
    return np.concatenate(moved).astype(np.float32)


def pipeline(row: str) -> Pipeline:
    """The demo's bundle, or the same network with another localization."""
    description, network = checkpoint.load(DEMO / "checkpoint")
    own = description.bundle.localization
    localization = {
        "as it is": own,
        "without companions": own.model_copy(update={"companion_ratio": None}),
        "released": _as_released(own),
    }[row]
    bundle = description.bundle.model_copy(update={"localization": localization})
    sha256 = bundle.backbones[0].sha256
    manifest = Manifest(
        description=bundle,
        backbones={"rgb": Network(model="i3d", sha256=sha256)},
        cas=Network(model="cas", sha256=sha256),
    )
    return Pipeline(manifest, Trained(network))


def _as_released(own: LocalizationSettings) -> LocalizationSettings:
    kept = ("top_k_ratio", "class_score_threshold", "cas_thresholds", "outer_width", "gamma")
    return LocalizationSettings(
        preset="released",
        magnitude_thresholds=THUMOS14.magnitude_thresholds,
        nms_tiou=own.nms_tiou,
        max_segments=own.max_segments,
        **{name: getattr(own, name) for name in kept},
    )


def mean_map(through: Pipeline, videos: dict[str, Video], classes: tuple[str, ...]) -> float:
    truth = GroundTruth(
        {
            name: VideoTruth("test", video.features.duration_seconds, None, video.instances)
            for name, video in videos.items()
        },
        classes,
        "the demo's videos",
    )
    found: Detections = {
        name: through.run(Request(features=video.features), keep=()).segments
        for name, video in videos.items()
    }
    return mean_average_precision(truth, found, TIOUS).average


def test_ten_videos_joined_lose_no_more_than_a_little(
    groups: list[dict[str, Video]], truth: GroundTruth
) -> None:
    lost = {}
    for row in ("as it is", "without companions", "released"):
        through = pipeline(row)
        alone = [mean_map(through, group, truth.classes) for group in groups]
        together = [
            mean_map(through, {"joined": joined(list(group.values()))}, truth.classes)
            for group in groups
        ]
        lost[row] = np.subtract(alone, together)
        print(f"{row}: one by one {np.round(alone, 3)}, joined {np.round(together, 3)}")
    assert lost["as it is"].mean() <= MOST_LOST
    assert lost["without companions"].mean() > MOST_LOST
    # What the windows are for: resized to T as a whole, the same ten lose most of it.
    assert lost["released"].min() > 0.2


def test_a_joined_video_takes_several_chunks_and_windows(groups: list[dict[str, Video]]) -> None:
    description, _ = checkpoint.load(DEMO / "checkpoint")
    for group in groups:
        whole = joined(list(group.values())).features
        num_positions = whole.duration_seconds / description.bundle.grid.position_seconds
        assert num_positions > CAS_CHUNK_POSITIONS
        assert num_positions > 5 * description.bundle.grid.window_positions
