"""The engines of a bundle: each of its networks built at a precision, and held against float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backtal.backbones import Say
from backtal.errors import InvalidArgument, NotFound
from backtal.extraction import clip_batches
from backtal.flow import plan_flow_fields
from backtal.manifest import ClipPlan, Manifest, Network, StreamName
from backtal.repository import float32_path
from backtal.video import VideoLimits, open_video
from backtal_export.cache import appearing_whole
from backtal_export.float16 import to_float16
from backtal_export.tensorrt.engine import BuildSettings, build_engine, check_machine, engine_cosine
from backtal_export.tensorrt.int8 import to_int8
from backtal_export.tensorrt.profiles import ShapeProfile, clips_profile, features_profile

EnginePrecision = Literal["float32", "float16", "int8"]
Batch = Mapping[str, NDArray[Any]]

_BATCHES_OF_A_VIDEO = 8
_VERIFIED_BATCHES = 4


@dataclass(frozen=True)
class NetworkToBuild:
    """A network of a bundle, the shapes it is asked for, and inputs to hold it against."""

    model: str
    model_file: bytes
    profile: ShapeProfile
    batches: Sequence[Batch]
    quantizable: bool


def build_engines(
    repository: Path,
    manifest: Manifest,
    folder: Path,
    precision: EnginePrecision,
    videos: Sequence[Path],
    *,
    least_cosine: float,
    settings: BuildSettings,
    say: Say,
) -> dict[str, float]:
    """Write ``<model>.plan`` for every network into `folder`; the cosine to float32 by model.

    videos: int8's ranges are found on their clips, and every engine is held against ONNX Runtime
    on them. An engine below `least_cosine` is not written. In int8 the CAS network is float16.

    Raises MissingDependency where this machine cannot build engines, before anything is read.
    InvalidArgument without a video, or for an engine that is too far from float32.
    """
    check_machine()
    cosines: dict[str, float] = {}
    for network in networks_to_build(repository, manifest, videos):
        say(f"building {network.model} in {precision}")
        engine = build_engine(in_precision(network, precision), [network.profile], settings)
        checked = network.batches[:_VERIFIED_BATCHES]
        cosine = min(engine_cosine(engine, network.model_file, batch) for batch in checked)
        if cosine < least_cosine:
            raise InvalidArgument(
                f"{network.model} in {precision} has a cosine of {cosine:.6f} to float32, "
                f"allowed is {least_cosine} or more: it is not written"
            )
        with appearing_whole(folder / f"{network.model}.plan") as temporary:
            temporary.write_bytes(engine)
        cosines[network.model] = cosine
    return cosines


def networks_to_build(
    repository: Path, manifest: Manifest, videos: Sequence[Path]
) -> list[NetworkToBuild]:
    """The backbones of a bundle and its CAS network, with inputs from the videos' clips."""
    description = manifest.description
    if not videos:
        raise InvalidArgument(
            "give at least one video: engines are held against ONNX Runtime on it"
        )
    found = [
        NetworkToBuild(
            model=network.model,
            model_file=_model_file(repository, network),
            profile=clips_profile(description.clip_plan, stream),
            batches=[
                {"clips": batch}
                for video in videos
                for batch in video_batches(video, description.clip_plan, stream)
            ],
            quantizable=True,
        )
        for stream, network in manifest.backbones.items()
    ]
    # Features of no video in particular, as large as those of I3D are.
    random = np.random.default_rng(0)
    shape = (1, description.feature_dim, description.grid.window_positions)
    features = np.abs(random.normal(0, 0.5, shape)).astype(np.float32)
    cas = NetworkToBuild(
        model=manifest.cas.model,
        model_file=_model_file(repository, manifest.cas),
        profile=features_profile(description),
        batches=[{"features": features}],
        quantizable=False,
    )
    return [*found, cas]


def in_precision(network: NetworkToBuild, precision: EnginePrecision) -> bytes:
    """The network's file at `precision`; one that is not for int8 is in float16 then."""
    if precision == "float32":
        return network.model_file
    if precision == "int8" and network.quantizable:
        return to_int8(network.model_file, network.batches)
    return to_float16(network.model_file)


def video_batches(video: Path, plan: ClipPlan, stream: StreamName) -> list[NDArray[Any]]:
    """The first batches of what the stream's backbone is handed of a video's clips."""
    opened = open_video(video, VideoLimits())
    try:
        batches = list(islice(clip_batches(opened, plan, True), _BATCHES_OF_A_VIDEO))
    finally:
        opened.close()
    if plan.takes_frames(stream):
        return [batch[:, : plan.clip_shape(stream)[0]] for batch in batches]
    return [np.stack([plan_flow_fields(clip, plan) for clip in batch]) for batch in batches]


def _model_file(repository: Path, network: Network) -> bytes:
    path = float32_path(repository, network)
    if not path.is_file():
        raise NotFound(f"no such file: {path}, the network {network.model}")
    return path.read_bytes()
