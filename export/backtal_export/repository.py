"""From a checkpoint folder, or the name `kinetics400`, to a bundle in a model repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from backtal.backbones import check_weights, find_backbone
from backtal.errors import NotFound
from backtal.manifest import BundleDescription, Manifest
from backtal.settings import parse
from backtal_export import kinetics400
from backtal_export.model_folders import Exported, write_exported


def write_bundle(
    repository: Path,
    source: Path | str,
    *,
    name: str | None = None,
    say: Callable[[str], None] = print,
    weights: Mapping[str, Path] | None = None,
) -> Manifest:
    """Write the bundle of `source` into `repository` and give its manifest.

    source: ``"kinetics400"``, or a checkpoint folder (``./kinetics400`` for one of that name);
    name: the bundle's, else its own; weights: files of weights by backbone, for those that shall
    not use their own, which are fetched where the cache has not got them. A checkpoint names its
    backbones; `kinetics400` is of i3d-rgb, and of i3d-flow too where weights of it are given.

    Raises:
        NotFound: no such checkpoint folder, no such file of weights.
        InvalidFile: the checkpoint or the weights are not what they should be.
        InvalidArgument: the checkpoint was made with another backbone, or the name is no name.
        Unavailable: no network, or the repository cannot be written.
    """
    if source != kinetics400.NAME and not Path(source).is_dir():
        raise NotFound(f"no such checkpoint folder: {source}, nor is it {kinetics400.NAME}")
    if source == kinetics400.NAME:
        exported = kinetics400.kinetics400(weights or {}, say)
    else:
        exported = _checkpoint(Path(source), weights or {}, say)
    exported = replace(exported, description=_named(exported.description, name))
    manifest = write_exported(repository, exported)
    models = [*(network.model for network in manifest.backbones.values()), manifest.cas.model]
    say(f"wrote the bundle {exported.description.name} to {repository}, on {', '.join(models)}")
    return manifest


def _checkpoint(folder: Path, weights: Mapping[str, Path], say: Callable[[str], None]) -> Exported:
    from backtal_export.cas_network import cas_onnx
    from backtal_training.checkpoint import load

    checkpoint, network = load(folder)
    wanted = {part.name: part.stream for part in checkpoint.bundle.backbones}
    check_weights(weights, list(wanted))
    backbones = {
        stream: find_backbone(name).model_file(weights.get(name), say)
        for name, stream in wanted.items()
    }
    say(f"tracing the CAS network of {folder}")
    return Exported(
        description=checkpoint.bundle,
        backbones=backbones,
        cas=cas_onnx(network),
        training=checkpoint.training,
    )


def _named(description: BundleDescription, name: str | None) -> BundleDescription:
    if name is None:
        return description
    raw = {**description.model_dump(), "name": name}
    return parse(BundleDescription, raw, source="the bundle's name")
