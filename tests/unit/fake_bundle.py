"""A bundle whose networks are a few lines of NumPy, for tests of the pipeline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtal.features import FloatArray
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
    Manifest,
    Network,
    StreamName,
)
from backtal.stages import CasOutput, Clips

SHA256 = "ab" * 32
FEATURE_DIM = 4
HALO_POSITIONS = 2
CLASSES = ("run", "jump")
PLAN = ClipPlan(
    frames_per_second=25.0,
    frames_per_clip=4,
    stride_frames=2,
    short_side_pixels=32,
    crop_pixels=24,
)


def fake_manifest(
    *,
    plan: ClipPlan = PLAN,
    stream: StreamName = "rgb",
    position_seconds: float = 0.08,
    window_positions: int = 16,
    localization: LocalizationSettings | None = None,
) -> Manifest:
    """A bundle of two classes with magnitude and a halo of two positions."""
    backbone = Backbone(name="fake", stream=stream, sha256=SHA256, feature_dim=FEATURE_DIM)
    return Manifest(
        description=BundleDescription(
            name="fake",
            classes=CLASSES,
            clip_plan=plan,
            backbones=(backbone,),
            grid=Grid(position_seconds=position_seconds, window_positions=window_positions),
            cas=CasKind(
                kind="logits", background=False, magnitude=True, halo_positions=HALO_POSITIONS
            ),
            localization=localization or LocalizationSettings(class_score_threshold=0.0),
        ),
        backbones={stream: Network(model="fake-net", sha256=SHA256)},
        cas=Network(model="fake-cas", sha256=SHA256),
    )


class FakeStages:
    """Mean colours as features; a CAS that looks two positions to either side.

    It remembers the sizes of what it was asked, to be looked at by tests.
    """

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.chunk_lengths: list[int] = []
        self.flow_lengths: list[int] = []

    def features(self, stream: str, clips: Clips) -> FloatArray:
        """Mean of each channel, and the first frame's mean, of flow the last one's too: [n, 4]."""
        self.batch_sizes.append(len(clips))
        colours = clips.mean(axis=(1, 2, 3), dtype=np.float64)
        if stream == "flow":
            ends = [clips[:, end].mean(axis=(1, 2, 3), dtype=np.float64) for end in (0, -1)]
            return np.column_stack([colours, *ends]).astype(np.float32)
        first = clips[:, 0].mean(axis=(1, 2, 3), dtype=np.float64)
        return np.column_stack([colours, first]).astype(np.float32)

    def flow_fields(self, frames: NDArray[np.uint8]) -> FloatArray:
        """The change of the red and the green of each pixel: [m, H, W, 2]."""
        self.flow_lengths.append(len(frames) - 1)
        return np.diff(frames[..., :2].astype(np.float32), axis=0)

    def cas(self, features: FloatArray) -> CasOutput:
        """The sum over five positions, zeros beyond the ends, of two of the features."""
        self.chunk_lengths.append(features.shape[2])
        length = features.shape[2]
        reach = HALO_POSITIONS
        padded = np.pad(features, ((0, 0), (0, 0), (reach, reach)))
        summed = sum(
            padded[:, :, shift : shift + length] * np.float32(shift + 1)
            for shift in range(2 * reach + 1)
        )
        cas = np.stack([summed[:, 0] - summed[:, 3], summed[:, 3]], axis=1)
        return CasOutput(cas, np.abs(summed).sum(axis=1))
