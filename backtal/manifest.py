"""What a bundle is: its classes, clip plan, grid of positions, networks, localization settings.

A checkpoint carries a `BundleDescription`; export adds the names and hashes of the networks it
wrote and calls the whole a `Manifest`. Serving and offline work read everything from it: nothing
is configured twice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from backtal.localization.settings import LocalizationSettings
from backtal.networks import Backend
from backtal.precision import Precision
from backtal.settings import Settings, read_json

MANIFEST_NAME = "manifest.json"

StreamName = Literal["rgb", "flow"]
FlowMethod = Literal["tvl1", "dis", "tvl1-network"]
# Found by the flow backbone itself, wherever that runs: it takes frames.
FLOW_IN_NETWORK: FlowMethod = "tvl1-network"
RGB_CHANNELS = 3
# Horizontal, then vertical.
FLOW_CHANNELS = 2
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ClipPlan(Settings):
    """Which frames make a clip.

    The video is read at `frames_per_second` (for each tick the frame that is on show then), its
    short side scaled to `short_side_pixels` and its middle `crop_pixels` square cut out. Clip i
    is the `frames_per_clip` frames from tick ``i * stride_frames`` on.

    `flow` says how optical flow is computed, where a stream needs it: by OpenCV, in the pipeline's
    process (`tvl1`, `dis`), or in the backbone's own network (`tvl1-network`). Flow t of a clip is
    from frame t to frame t + 1, so that a clip then takes one frame more.
    """

    frames_per_second: float = Field(default=25.0, gt=0, le=240)
    frames_per_clip: int = Field(default=16, ge=1, le=256)
    stride_frames: int = Field(default=16, ge=1, le=1024)
    short_side_pixels: int = Field(default=256, ge=16, le=2048)
    crop_pixels: int = Field(default=224, ge=16, le=2048)
    flow: FlowMethod | None = None

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipPlan:
        if self.crop_pixels > self.short_side_pixels:
            raise ValueError(
                f"crop_pixels {self.crop_pixels} is larger than short_side_pixels "
                f"{self.short_side_pixels}"
            )
        return self

    @property
    def frames_taken(self) -> int:
        """The frames that a clip is made from: one more than it has where it has flow."""
        return self.frames_per_clip + (self.flow is not None)

    def takes_frames(self, stream: StreamName) -> bool:
        """Whether the stream's backbone is handed colours: else it is handed flow."""
        return stream == "rgb" or self.flow == FLOW_IN_NETWORK

    def clip_shape(self, stream: StreamName) -> tuple[int, int, int, int]:
        """What the stream's backbone is handed of a clip: frames, height, width and channels.

        Colours are uint8. Flow is float32, pixels a tick.
        """
        pixels = self.crop_pixels
        if not self.takes_frames(stream):
            return self.frames_per_clip, pixels, pixels, FLOW_CHANNELS
        frames = self.frames_per_clip if stream == "rgb" else self.frames_taken
        return frames, pixels, pixels, RGB_CHANNELS

    @property
    def stride_seconds(self) -> float:
        """Seconds from the start of one clip to the start of the next."""
        return self.stride_frames / self.frames_per_second


class Backbone(Settings):
    """The network that turns a stream's clips into features."""

    name: str = Field(min_length=1)
    stream: StreamName
    sha256: Sha256 = Field(description="of weights, graph and normalisation, not the precision")
    feature_dim: int = Field(ge=1)


class Grid(Settings):
    """The positions of the CAS: seconds each stands for, and how many make a window (T)."""

    position_seconds: float = Field(gt=0)
    window_positions: int = Field(ge=2)


class CasKind(Settings):
    """What the CAS network gives: see DESIGN, contracts between stages.

    `logits` are min-max normalised by localization, a `probability` is taken as it is. With
    `background`, the last of its classes is background. With `magnitude`, a second output is the
    feature magnitude [B, L].
    """

    kind: Literal["logits", "probability"]
    background: bool
    magnitude: bool
    halo_positions: int = Field(default=4, ge=0)


class BundleDescription(Settings):
    """What a checkpoint says about itself, and all that a pipeline must know."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    classes: tuple[str, ...] = Field(min_length=1)
    clip_plan: ClipPlan
    backbones: tuple[Backbone, ...] = Field(min_length=1, max_length=2)
    grid: Grid
    cas: CasKind
    localization: LocalizationSettings

    @model_validator(mode="after")
    def _consistent(self) -> BundleDescription:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes holds a name twice")
        _check_streams(self.backbones, self.clip_plan)
        return self

    @property
    def feature_dim(self) -> int:
        """D: the features of all streams, concatenated in the order of `backbones`."""
        return sum(backbone.feature_dim for backbone in self.backbones)

    @property
    def cas_channels(self) -> int:
        """C, or C + 1 where the last one is background."""
        return len(self.classes) + int(self.cas.background)


class TensorShape(Settings):
    """An input or output of a network: a free dimension has a name, a fixed one its size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GateFigures(Settings):
    """How far a variant is from float32, as measured before it was written.

    feature_cosine: the lowest over the clips of the cosine between a clip's features in float32
    and in the variant. cas_error: the largest difference of the CAS over the largest value in
    float32. map_float32, map_variant: average mAP of the validation set, from the features in
    float32 through each CAS network. None: does not apply, or nothing was given to measure it on.
    measured_on: what the inputs were.
    """

    feature_cosine: float | None = None
    cas_error: float | None = None
    map_float32: float | None = None
    map_variant: float | None = None
    measured_on: str = ""


class FeatureDescription(Settings):
    """What features are made by where there is no CAS network yet: as a bundle's description."""

    name: str
    clip_plan: ClipPlan
    backbones: tuple[Backbone, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> FeatureDescription:
        _check_streams(self.backbones, self.clip_plan)
        return self


class Network(Settings):
    """An ONNX file of the repository: ``<model>/1/model.onnx``, loaded under `model`'s name.

    sha256: of that file. precision: what it is computed in; bfloat16 is float32 on a processor
    without it. figures: None for float32, which is the measure of the others. float32_sha256: of
    ``<model>/1/float32.onnx``, the same network in float32, where the precision is in the file
    itself; left out of the text where there is none.
    """

    model: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    sha256: Sha256
    precision: Precision = "float32"
    backend: Backend = "onnxruntime"
    opset: int | None = None
    inputs: tuple[TensorShape, ...] = ()
    outputs: tuple[TensorShape, ...] = ()
    figures: GateFigures | None = None
    float32_sha256: Sha256 | None = Field(default=None, exclude_if=lambda value: value is None)


Target = Literal["embedded", "triton-cpu", "triton-gpu", "triton-tensorrt"]


class FeatureManifest(Settings):
    """Backbones alone: the part of a manifest that features are made by."""

    description: FeatureDescription
    backbones: dict[StreamName, Network]


class Manifest(Settings):
    """A bundle as it is served.

    Where a stream of the description has no network in `backbones`, the bundle takes features of
    the backbone that the description names, and no video.

    target: which Triton the repository was written for. source: the checkpoint that the bundle
    was exported from, by the hash of its files. library_versions: of what wrote the networks.
    """

    schema_version: Literal[1] = 1
    description: BundleDescription
    backbones: dict[StreamName, Network]
    cas: Network
    target: Target = "embedded"
    source: str = ""
    training: dict[str, Any] = Field(default_factory=dict)
    library_versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        wanted = {backbone.stream for backbone in self.description.backbones}
        if not set(self.backbones) <= wanted:
            raise ValueError(f"networks for {sorted(self.backbones)}, streams {sorted(wanted)}")
        return self

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every network of the bundle, the CAS network last."""
        return (*self.backbones.values(), self.cas)

    @property
    def sha256(self) -> str:
        """The bundle's hash: of the whole manifest, and through it of every network."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read `path`, a manifest.json. InvalidFile names what does not fit."""
        return read_json(cls, path)

    def to_text(self) -> str:
        """What `save` writes."""
        return self.model_dump_json(indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write manifest.json."""
        path.write_text(self.to_text())


def _check_streams(backbones: tuple[Backbone, ...], plan: ClipPlan) -> None:
    streams = [backbone.stream for backbone in backbones]
    if len(set(streams)) != len(streams):
        raise ValueError(f"backbones name a stream twice: {streams}")
    if plan.flow is not None and "flow" not in streams:
        raise ValueError(f"clip_plan.flow is {plan.flow}, but no backbone takes flow: {streams}")
