"""A bundle of files that stand for networks: enough where what counts is how it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
)
from backtal_export.model_folders import Exported
from backtal_export.onnx_file import sha256_of, to_bytes


def model_file(seed: int) -> bytes:
    """A small network file: any will do where only its content's hash counts."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "constant"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([seed], np.float32), "constant")],
    )
    return to_bytes(graph)


BACKBONE, CAS, OTHER_CAS = model_file(0), model_file(1), model_file(2)
HASH = sha256_of(BACKBONE)


def describe(name: str = "small", backbone: str = HASH, *, magnitude: bool = True):
    return BundleDescription(
        name=name,
        classes=("jump", "run"),
        clip_plan=ClipPlan(),
        backbones=(Backbone(name="i3d-rgb", stream="rgb", sha256=backbone, feature_dim=1024),),
        grid=Grid(position_seconds=0.64, window_positions=50),
        cas=CasKind(kind="logits", background=True, magnitude=magnitude),
        localization=LocalizationSettings(),
    )


def exported(name: str = "small", cas: bytes = CAS, **options) -> Exported:
    return Exported(
        description=describe(name, **options),
        backbones={"rgb": BACKBONE},
        cas=cas,
        training={"seed": 1},
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def config(path: Path):
    """The configuration as Triton reads it: an unknown field raises."""
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
