"""A variant that is close enough passes, one whose weights are damaged does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import precision
from backtal.errors import GateFailed, InvalidArgument, InvalidFile
from backtal.manifest import ClipPlan, GateFigures, Manifest
from backtal.precision import processor_has_bfloat16
from backtal.runtime import OnnxStages
from backtal_export import runtimes
from backtal_export.gates import (
    GateThresholds,
    Validation,
    cosines,
    judge,
    measure,
    read_thresholds,
    seeded_clips,
    walk_between,
)
from backtal_export.model_folders import Exported, Variant, write_exported
from backtal_export.repository import ExportOptions, proved
from backtal_export.runtimes import (
    PRECISIONS,
    REFERENCE,
    Runtime,
    backbone_runtime,
    choose_runtime,
)
from tests.unit.small_bundle import (
    NUM_VIDEOS,
    backbone_file,
    cas_file,
    small_export,
    write_golden_set,
)

BFLOAT16 = Runtime("bfloat16", "openvino")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_golden_set(folder)
    return folder


@pytest.fixture
def validation(golden: Path) -> Validation:
    return Validation.load(golden, golden / "ground_truth.json")


def stages(folder: Path, exported: Exported) -> tuple[Manifest, OnnxStages]:
    manifest = write_exported(folder, exported)
    return manifest, OnnxStages(folder, manifest, threads=1)


def test_the_same_networks_differ_in_nothing(tmp_path: Path, validation: Validation) -> None:
    manifest, exact = stages(tmp_path, small_export())
    found = measure(manifest, exact, exact, validation)
    assert found.backbones["rgb"].feature_cosine == pytest.approx(1.0, abs=1e-12)
    assert found.cas.cas_error == 0.0
    assert found.cas.map_float32 == found.cas.map_variant
    assert found.cas.map_float32 == pytest.approx(1.0)
    assert str(NUM_VIDEOS) in found.cas.measured_on


@pytest.mark.skipif(not processor_has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_passes_and_its_figures_go_into_the_manifest(validation: Validation) -> None:
    options = ExportOptions(validation=validation)
    exported = proved(small_export(BFLOAT16), BFLOAT16, options)
    backbone, cas = exported.backbone_variants["rgb"], exported.cas_variant
    assert backbone.runtime == BFLOAT16
    assert 0.9999 <= backbone.figures.feature_cosine < 1.0
    assert cas is not None
    assert 0.0 < cas.figures.cas_error < 0.03
    assert cas.figures.map_variant == pytest.approx(1.0)


@pytest.mark.parametrize("part", ["backbone", "cas"])
def test_damaged_weights_fail_by_the_figure(
    tmp_path: Path, validation: Validation, part: str
) -> None:
    good = small_export()
    damaged = replace(good, cas_variant=Variant(cas_file(damage=0.2)))
    if part == "backbone":
        damaged = replace(good, backbone_variants={"rgb": Variant(backbone_file(damage=0.2))})
    manifest, exact = stages(tmp_path / "exact", good)
    _, found = stages(tmp_path / "damaged", damaged)
    figures = measure(manifest, exact, found, validation)
    judged = figures.backbones["rgb"] if part == "backbone" else figures.cas
    with pytest.raises(GateFailed, match="feature cosine" if part == "backbone" else "CAS error"):
        judge("model", judged, GateThresholds())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["backbone", "cas"])
def test_what_is_no_finite_number_fails(tmp_path: Path, part: str, value: float) -> None:
    good = small_export()
    damaged = replace(good, cas_variant=Variant(cas_file(damage=value)))
    if part == "backbone":
        damaged = replace(good, backbone_variants={"rgb": Variant(backbone_file(damage=value))})
    manifest, exact = stages(tmp_path / "exact", good)
    _, found = stages(tmp_path / "damaged", damaged)
    name = "small" if part == "backbone" else "cas"
    with pytest.raises(GateFailed, match=rf"{name}-.*: \d+ of \d+ values .* no finite numbers"):
        measure(manifest, exact, found)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"feature_cosine": 0.99}, r"m: the lowest feature cosine is 0\.990000, allowed are 0\.9"),
        ({"feature_cosine": float("nan")}, "the lowest feature cosine is nan"),
        ({"cas_error": 0.5}, r"m: the CAS error is 0\.5000, allowed are 0\.03 and less"),
        ({"cas_error": float("nan")}, "the CAS error is nan"),
        ({"map_float32": 0.5, "map_variant": 0.4}, r"m: the mAP falls by 0\.1000, from 0\.5000"),
    ],
)
def test_a_figure_beyond_its_threshold_is_named(figures: dict, message: str) -> None:
    with pytest.raises(GateFailed, match=message):
        judge("m", GateFigures.model_construct(**figures), GateThresholds())


def test_what_was_not_measured_fails_nothing() -> None:
    judge("m", GateFigures(), GateThresholds())
    judge("m", GateFigures(map_float32=0.4, map_variant=0.6), GateThresholds())


def test_a_variant_that_fails_its_gate_is_not_given() -> None:
    strict = GateThresholds(minimum_feature_cosine=1.0, maximum_cas_error=1e-9)
    if not processor_has_bfloat16():
        pytest.skip("this processor has no bfloat16: nothing is rounded")
    with pytest.raises(GateFailed, match="bfloat16"):
        proved(small_export(BFLOAT16), BFLOAT16, ExportOptions(thresholds=strict))


def test_thresholds_are_configured_and_a_wrong_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("minimum_feature_cosine: 0.99\n")
    assert read_thresholds(path).minimum_feature_cosine == 0.99
    assert read_thresholds(path).maximum_cas_error == GateThresholds().maximum_cas_error
    path.write_text("minimum_feature_cosin: 0.99\n")
    with pytest.raises(InvalidFile, match="did you mean minimum_feature_cosine"):
        read_thresholds(path)
    assert read_thresholds(None) == GateThresholds()


def test_a_validation_set_without_a_video_is_refused(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="has features of no video of"):
        Validation.load(tmp_path, golden / "ground_truth.json")


def test_seeded_clips_are_the_same_every_time() -> None:
    clips = seeded_clips(4, 16)
    assert clips.shape == (4, 4, 16, 16, 3)
    np.testing.assert_array_equal(clips, seeded_clips(4, 16))
    assert len({clip.tobytes() for clip in clips}) == len(clips)


@given(st.integers(2, 6), st.integers(1, 5))
def test_a_walk_passes_every_point(points: int, dim: int) -> None:
    features = np.random.default_rng(points).normal(size=(points, dim)).astype(np.float32)
    walk = walk_between(features)
    np.testing.assert_allclose(walk[:, ::16], features.T, atol=1e-6)
    assert walk.shape == (dim, 16 * (points - 1) + 1)


def test_cosines_of_known_pairs() -> None:
    first = np.array([[1, 0], [1, 1], [0, 0], [2, 0]], np.float32)
    second = np.array([[0, 3], [1, 0], [1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [0, np.sqrt(0.5), 0, -1])


def test_every_target_has_a_runtime_for_each_of_its_precisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    for target, allowed in PRECISIONS.items():
        for wanted in allowed:
            assert choose_runtime(target, wanted).precision == wanted
    with pytest.raises(
        InvalidArgument, match="'bfloat16', allowed for triton-gpu are float32, float16"
    ):
        choose_runtime("triton-gpu", "bfloat16")


def test_a_network_that_finds_flow_stays_in_float32() -> None:
    plan = ClipPlan(flow="tvl1-network")
    assert backbone_runtime(plan, "flow", BFLOAT16) == REFERENCE
    assert backbone_runtime(plan, "rgb", BFLOAT16) == BFLOAT16
    assert backbone_runtime(ClipPlan(flow="tvl1"), "flow", BFLOAT16) == BFLOAT16


def test_what_cannot_be_measured_here_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    with pytest.raises(InvalidArgument, match="'bfloat16', which this processor has no instr"):
        choose_runtime("embedded", "bfloat16")


@pytest.mark.parametrize("has", [True, False])
def test_the_default_is_what_can_be_proved_here(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(runtimes, "processor_has_bfloat16", lambda: has)
    embedded = choose_runtime("embedded", None)
    assert embedded == Runtime("bfloat16" if has else "float32", "openvino")
    assert choose_runtime("triton-cpu", None) == (BFLOAT16 if has else REFERENCE)
    assert choose_runtime("triton-gpu", None) == REFERENCE
