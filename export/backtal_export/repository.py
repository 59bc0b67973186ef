"""From a checkpoint folder, or the name `kinetics400`, to a bundle in a model repository."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from backtal.errors import InvalidArgument, NotFound
from backtal.manifest import BundleDescription, Manifest, Target
from backtal.precision import Precision
from backtal.runtime import OnnxStages
from backtal.settings import parse
from backtal_export import kinetics400
from backtal_export.backbones.i3d_layers import Weights
from backtal_export.backbones.i3d_onnx import i3d_rgb_onnx
from backtal_export.backbones.weights import i3d_rgb_weights
from backtal_export.gates import GateThresholds, Validation, judge, measure
from backtal_export.model_folders import Exported, Variant, write_exported
from backtal_export.onnx_file import sha256_of
from backtal_export.runtimes import REFERENCE, Runtime, choose_runtime

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
    weights: Weights | None = None,
) -> Manifest:
    """Write the bundle of `source` into `repository` and give its manifest.

    source: ``"kinetics400"``, or a checkpoint folder (``./kinetics400`` for one of that name);
    weights: I3D's, else those of the cache, fetched where they are not there yet.

    Raises:
        NotFound: no such checkpoint folder.
        InvalidFile: the checkpoint or the fetched weights are not what they should be.
        InvalidArgument: the checkpoint was made with another backbone, the name is no name, or
            the target has no such precision.
        GateFailed: a network at this precision is too far from float32.
        Unavailable: no network, or the repository cannot be written.
    """
    options = options or ExportOptions()
    runtime = choose_runtime(options.target, options.precision)
    if source != kinetics400.NAME and not Path(source).is_dir():
        raise NotFound(f"no such checkpoint folder: {source}, nor is it {kinetics400.NAME}")
    weights = i3d_rgb_weights(say) if weights is None else weights
    backbone = i3d_rgb_onnx(weights)
    if source == kinetics400.NAME:
        exported = _kinetics400(weights, backbone, options.name)
    else:
        say(f"tracing the CAS network of {source}")
        exported = _checkpoint(Path(source), backbone, options.name, runtime)
    exported = replace(exported, target=options.target, library_versions=library_versions())
    if runtime != REFERENCE:
        say(f"measuring the networks in {runtime.precision} against float32")
        exported = proved(exported, runtime, options)
    manifest = write_exported(repository, exported)
    models = ", ".join(network.model for network in manifest.networks)
    say(f"wrote the bundle {exported.description.name} to {repository}, on {models}")
    return manifest


def proved(exported: Exported, runtime: Runtime, options: ExportOptions) -> Exported:
    """The bundle with its networks at the wanted precision, each past its gate."""
    variants = {stream: Variant(file, runtime) for stream, file in exported.backbones.items()}
    # kinetics400 has none: its head is one small product, computed in float32.
    cas = exported.cas_variant
    wanted = replace(exported, backbone_variants=variants)
    with tempfile.TemporaryDirectory(prefix="backtal-gate-") as folder:
        reference, variant = Path(folder, "reference"), Path(folder, "variant")
        exact = replace(exported, backbone_variants={}, cas_variant=None)
        reference_stages = OnnxStages(reference, write_exported(reference, exact))
        manifest = write_exported(variant, wanted)
        measured = measure(
            manifest, reference_stages, OnnxStages(variant, manifest), options.validation
        )
    for stream, figures in measured.backbones.items():
        judge(manifest.backbones[stream].model, figures, options.thresholds)
    judge(manifest.cas.model, measured.cas, options.thresholds)
    return replace(
        wanted,
        backbone_variants={
            stream: replace(part, figures=measured.backbones[stream])
            for stream, part in variants.items()
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


def _kinetics400(weights: Weights, backbone: bytes, name: str | None) -> Exported:
    return Exported(
        description=_named(kinetics400.kinetics400_description(sha256_of(backbone)), name),
        backbones={"rgb": backbone},
        cas=kinetics400.kinetics400_cas_onnx(weights),
        training={},
        source="kinetics400, I3D's own head",
    )


def _checkpoint(folder: Path, backbone: bytes, name: str | None, runtime: Runtime) -> Exported:
    from backtal_export.affinity_forms import FASTEST_FORM
    from backtal_export.cas_network import cas_onnx
    from backtal_training.checkpoint import load

    checkpoint, network = load(folder)
    description = _named(checkpoint.bundle, name)
    strange = [part.name for part in description.backbones if part.name != kinetics400.I3D_RGB_NAME]
    if strange:
        raise InvalidArgument(
            f"{folder} wants the backbones {', '.join(strange)}; "
            f"this machine can export {kinetics400.I3D_RGB_NAME}"
        )
    return Exported(
        description=description,
        backbones={"rgb": backbone},
        cas=cas_onnx(network, FASTEST_FORM[REFERENCE.backend]),
        cas_variant=Variant(cas_onnx(network, FASTEST_FORM[runtime.backend]), runtime),
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
