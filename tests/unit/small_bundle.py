"""A bundle with real, tiny networks of clips of 4 frames of 16 x 16 pixels: exported in no time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from backtal.features import FeatureProvenance, FeatureSequence
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import Backbone, BundleDescription, CasKind, ClipPlan, Grid
from backtal_export.model_folders import Exported, Variant
from backtal_export.onnx_file import sha256_of, to_bytes
from backtal_export.runtimes import REFERENCE, Runtime

PLAN = ClipPlan(frames_per_clip=4, stride_frames=4, short_side_pixels=16, crop_pixels=16)
FEATURE_DIM = 12
CLASSES = ("jump", "run")
NUM_VIDEOS = 4


def small_export(
    runtime: Runtime = REFERENCE, *, name: str = "small", cas: bytes | None = None
) -> Exported:
    """What is written as the bundle: both networks by `runtime`."""
    backbone, cas = backbone_file(), cas_file() if cas is None else cas
    return Exported(
        description=describe(name),
        backbones={"rgb": backbone},
        cas=cas,
        training={"seed": 1},
        backbone_variants={"rgb": Variant.of(backbone, runtime)},
        cas_variant=Variant.of(cas, runtime),
    )


def describe(name: str = "small") -> BundleDescription:
    """The bundle of `small_export`."""
    digest = sha256_of(backbone_file())
    return BundleDescription(
        name=name,
        classes=CLASSES,
        clip_plan=PLAN,
        backbones=(Backbone(name="small", stream="rgb", sha256=digest, feature_dim=FEATURE_DIM),),
        grid=Grid(position_seconds=1.0, window_positions=32),
        cas=CasKind(kind="logits", background=False, magnitude=False, halo_positions=0),
        localization=LocalizationSettings(class_score_threshold=0.3),
    )


def backbone_file(damage: float = 0.0) -> bytes:
    """The means of cells of the clip, times a matrix, and a ReLU; damaged as `cas_file` is."""
    shape = (4 * 4 * 3, FEATURE_DIM)
    weights = np.random.default_rng(5).normal(size=shape)
    weights = weights + damage * np.random.default_rng(6).normal(size=shape)
    frames, pixels = PLAN.frames_per_clip, PLAN.crop_pixels
    nodes = [
        helper.make_node("Cast", ["clips"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "cells"], ["parted"]),
        helper.make_node("ReduceMean", ["parted", "axes"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["products"]),
        helper.make_node("Relu", ["products"], ["features"]),
    ]
    constants = {
        "cells": np.array([-1, frames, 4, pixels // 4, 4, pixels // 4, 3], np.int64),
        "axes": np.array([1, 3, 5], np.int64),
        "rows": np.array([-1, 4 * 4 * 3], np.int64),
        "weights": (weights / 128).astype(np.float32),
    }
    clips = helper.make_tensor_value_info(
        "clips", TensorProto.UINT8, ["N", frames, pixels, pixels, 3]
    )
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURE_DIM])
    return _file(nodes, [clips], [features], constants)


def cas_file(damage: float = 0.0) -> bytes:
    """The first features are the classes' logits; `damage` is added to the weights at random."""
    kernel = np.eye(len(CLASSES), FEATURE_DIM, dtype=np.float32)[:, :, None]
    kernel = kernel + damage * np.random.default_rng(6).normal(size=kernel.shape)
    nodes = [helper.make_node("Conv", ["features", "kernel"], ["cas"])]
    kind = TensorProto.FLOAT
    features = helper.make_tensor_value_info("features", kind, ["B", FEATURE_DIM, "L"])
    cas = helper.make_tensor_value_info("cas", kind, ["B", len(CLASSES), "L"])
    return _file(nodes, [features], [cas], {"kernel": kernel.astype(np.float32)})


def write_golden_set(folder: Path) -> None:
    """Features of videos, each with one action that the bundle finds, and the ground truth."""
    random = np.random.default_rng(7)
    database = {}
    digest = sha256_of(backbone_file())
    for index in range(NUM_VIDEOS):
        values = random.uniform(0, 0.2, (FEATURE_DIM, 30)).astype(np.float32)
        values[index % 2, 8 + index : 16 + index] = 6.0
        FeatureSequence.from_equal_parts(
            values, 30.0, provenance=FeatureProvenance(backbone_sha256=(digest,))
        ).save(folder / f"video_{index}.npz")
        action = {"segment": [8.0 + index, 16.0 + index], "label": CLASSES[index % 2]}
        database[f"video_{index}"] = {"subset": "test", "duration": 30.0, "annotations": [action]}
    (folder / "ground_truth.json").write_text(json.dumps({"database": database}))


def _file(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return to_bytes(helper.make_graph(nodes, "small", inputs, outputs, initializers))
