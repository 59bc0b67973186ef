"""From a checkpoint folder, or the name `kinetics400`, to a bundle in a model repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backtal.errors import InvalidArgument, NotFound
from backtal.manifest import BundleDescription, Manifest
from backtal.settings import parse
from backtal_export import kinetics400
from backtal_export.backbones.i3d_layers import Weights
from backtal_export.backbones.i3d_onnx import i3d_rgb_onnx
from backtal_export.backbones.weights import i3d_rgb_weights
from backtal_export.model_folders import Exported, write_exported
from backtal_export.onnx_file import sha256_of


def write_bundle(
    repository: Path,
    source: Path | str,
    *,
    name: str | None = None,
    say: Callable[[str], None] = print,
    weights: Weights | None = None,
) -> Manifest:
    """Write the bundle of `source` into `repository` and give its manifest.

    source: ``"kinetics400"``, or a checkpoint folder (``./kinetics400`` for one of that name);
    name: the bundle's, else its own; weights: I3D's, else those of the cache, fetched where they
    are not there yet.

    Raises:
        NotFound: no such checkpoint folder.
        InvalidFile: the checkpoint or the fetched weights are not what they should be.
        InvalidArgument: the checkpoint was made with another backbone, or the name is no name.
        Unavailable: no network, or the repository cannot be written.
    """
    if source != kinetics400.NAME and not Path(source).is_dir():
        raise NotFound(f"no such checkpoint folder: {source}, nor is it {kinetics400.NAME}")
    exported = None
    if source != kinetics400.NAME:
        say(f"tracing the CAS network of {source}")
        exported = _features_only(Path(source), name)
    if exported is None:
        weights = i3d_rgb_weights(say) if weights is None else weights
        backbone = i3d_rgb_onnx(weights)
        if source == kinetics400.NAME:
            exported = _kinetics400(weights, backbone, name)
        else:
            exported = _checkpoint(Path(source), backbone, name)
    manifest = write_exported(repository, exported)
    models = [*(network.model for network in manifest.backbones.values()), manifest.cas.model]
    say(f"wrote the bundle {exported.description.name} to {repository}, on {', '.join(models)}")
    return manifest


def _kinetics400(weights: Weights, backbone: bytes, name: str | None) -> Exported:
    return Exported(
        description=_named(kinetics400.kinetics400_description(sha256_of(backbone)), name),
        backbones={"rgb": backbone},
        cas=kinetics400.kinetics400_cas_onnx(weights),
        training={},
    )


def _features_only(folder: Path, name: str | None) -> Exported | None:
    """A checkpoint for published features, whose backbone nobody has; None for any other."""
    from backtal_export.cas_network import cas_onnx
    from backtal_training.bundle import PUBLISHED_BACKBONES
    from backtal_training.checkpoint import load

    checkpoint, network = load(folder)
    description = _named(checkpoint.bundle, name)
    if not all(part.name.startswith(PUBLISHED_BACKBONES) for part in description.backbones):
        return None
    return Exported(description, {}, cas_onnx(network), checkpoint.training)


def _checkpoint(folder: Path, backbone: bytes, name: str | None) -> Exported:
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
        cas=cas_onnx(network),
        training=checkpoint.training,
    )


def _named(description: BundleDescription, name: str | None) -> BundleDescription:
    if name is None:
        return description
    raw = {**description.model_dump(), "name": name}
    return parse(BundleDescription, raw, source="the bundle's name")
