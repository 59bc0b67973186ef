"""From a checkpoint folder, or the name `kinetics400`, to a bundle in a model repository."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backtal.backbones import check_weights, find_backbone
from backtal.errors import NotFound
from backtal.manifest import BundleDescription, Manifest, Target
from backtal.precision import Precision
from backtal.runtime import OnnxStages
from backtal.settings import parse
from backtal_export import kinetics400
from backtal_export.drafts import only_writer
from backtal_export.gate_stages import as_served
from backtal_export.gates import GateThresholds, Validation, judge, measure
from backtal_export.model_folders import Exported, Variant, write_exported
from backtal_export.runtimes import REFERENCE, Runtime, backbone_runtime, choose_runtime

_LIBRARIES = ("backtal", "numpy", "onnx", "onnxruntime", "openvino", "torch")


@dataclass(frozen=True, eq=False)
class ExportOptions:
    """How a bundle is exported.

    name: the bundle's, else its own. precision: None takes the fastest that is proved here.
    validation: features to measure the mAP on, beside the gate's other figures.
    """

    name: str | None = None
    target: Target = "embedded"
    precision: Precision | None = None
    thresholds: GateThresholds = field(default_factory=GateThresholds)
    validation: Validation | None = None


def write_bundle(
    repository: Path,
    source: Path | str,
    options: ExportOptions | None = None,
    *,
    say: Callable[[str], None] = print,
    weights: Mapping[str, Path] | None = None,
) -> Manifest:
    """Write the bundle of `source` into `repository` and give its manifest.

    source: ``"kinetics400"``, or a checkpoint folder (``./kinetics400`` for one of that name);
    weights: files of weights by backbone, for those that shall not use their own, which are
    fetched where the cache has not got them. A checkpoint names its backbones; `kinetics400` is of
    i3d-rgb, and of i3d-flow too where weights of it are given.

    Raises:
        NotFound: no such checkpoint folder, no such file of weights.
        InvalidFile: the checkpoint or the weights are not what they should be.
        InvalidArgument: the checkpoint was made with another backbone, the name is no name, or
            the target has no such precision.
        GateFailed: a network at this precision is too far from float32.
        Unavailable: no network, or the repository cannot be written.
    """
    options = options or ExportOptions()
    runtime = choose_runtime(options.target, options.precision)
    if source != kinetics400.NAME and not Path(source).is_dir():
        raise NotFound(f"no such checkpoint folder: {source}, nor is it {kinetics400.NAME}")
    if source == kinetics400.NAME:
        exported = kinetics400.kinetics400(weights or {}, say)
    else:
        exported = _checkpoint(Path(source), weights or {}, say, runtime)
    exported = replace(
        exported,
        description=_named(exported.description, options.name),
        target=options.target,
        library_versions=library_versions(),
    )
    if runtime != REFERENCE:
        say(f"measuring the networks in {runtime.precision} against float32")
        exported = proved(exported, runtime, options)
    with only_writer(repository, say):
        manifest = write_exported(repository, exported)
    models = ", ".join(network.model for network in manifest.networks)
    say(f"wrote the bundle {exported.description.name} to {repository}, on {models}")
    return manifest


def proved(exported: Exported, runtime: Runtime, options: ExportOptions) -> Exported:
    """The bundle with its networks at the wanted precision, each past its gate."""
    plan = exported.description.clip_plan
    variants = {
        stream: Variant.of(file, backbone_runtime(plan, stream, runtime))
        for stream, file in exported.backbones.items()
    }
    # kinetics400 has none: its head is one small product, computed in float32.
    cas = exported.cas_variant
    wanted = replace(exported, backbone_variants=variants)
    with tempfile.TemporaryDirectory(prefix="backtal-gate-") as folder:
        reference, variant = Path(folder, "reference"), Path(folder, "variant")
        exact = replace(exported, backbone_variants={}, cas_variant=None)
        reference_stages = OnnxStages(reference, write_exported(reference, exact))
        manifest = write_exported(variant, wanted)
        with as_served(variant, manifest) as stages:
            measured = measure(manifest, reference_stages, stages, options.validation)
    for stream, figures in measured.backbones.items():
        judge(manifest.backbones[stream].model, figures, options.thresholds)
    judge(manifest.cas.model, measured.cas, options.thresholds)
    return replace(
        wanted,
        backbone_variants={
            stream: replace(part, figures=measured.backbones[stream])
            for stream, part in variants.items()
            if part.runtime != REFERENCE
        },
        cas_variant=None if cas is None else replace(cas, figures=measured.cas),
    )


def library_versions() -> dict[str, str]:
    """What wrote the networks and measured them, by package; only what is installed."""
    found = {}
    for package in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _checkpoint(
    folder: Path, weights: Mapping[str, Path], say: Callable[[str], None], runtime: Runtime
) -> Exported:
    from backtal_export.affinity_forms import FASTEST_FORM
    from backtal_export.cas_network import cas_onnx
    from backtal_training.bundle import PUBLISHED_BACKBONES
    from backtal_training.checkpoint import load

    checkpoint, network = load(folder)
    # What made published features nobody has: such a bundle takes features, and no video.
    wanted = {
        part.name: part.stream
        for part in checkpoint.bundle.backbones
        if not part.name.startswith(PUBLISHED_BACKBONES)
    }
    check_weights(weights, list(wanted))
    backbones = {
        stream: find_backbone(name).model_file(weights.get(name), say)
        for name, stream in wanted.items()
    }
    say(f"tracing the CAS network of {folder}")
    return Exported(
        description=checkpoint.bundle,
        backbones=backbones,
        cas=cas_onnx(network, FASTEST_FORM[REFERENCE.backend]),
        cas_variant=Variant.of(cas_onnx(network, FASTEST_FORM[runtime.backend]), runtime),
        training=checkpoint.training,
        source=f"a checkpoint of SHA-256 {_sha256_of_folder(folder)}",
    )


def _sha256_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("checkpoint.json", "weights.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _named(description: BundleDescription, name: str | None) -> BundleDescription:
    if name is None:
        return description
    raw = {**description.model_dump(), "name": name}
    return parse(BundleDescription, raw, source="the bundle's name")
