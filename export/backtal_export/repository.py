"""From a checkpoint folder, or the name `kinetics400`, to a bundle in a repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backtal.errors import InvalidArgument
from backtal.manifest import Manifest
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
) -> Manifest:
    """Write the bundle of `source` into `repository` and give its manifest.

    source: ``"kinetics400"``, or a checkpoint folder. name: the bundle's, else its own. Fetches
    the backbone's weights where they are not in the cache yet.
    """
    weights = i3d_rgb_weights(say)
    backbone = i3d_rgb_onnx(weights)
    if str(source) == kinetics400.NAME:
        exported = _kinetics400(weights, backbone, name)
    else:
        exported = _checkpoint(Path(source), backbone, name)
    manifest = write_exported(repository, exported)
    models = [*(network.model for network in manifest.backbones.values()), manifest.cas.model]
    say(f"wrote the bundle {exported.description.name} to {repository}, on {', '.join(models)}")
    return manifest


def _kinetics400(weights: Weights, backbone: bytes, name: str | None) -> Exported:
    return Exported(
        description=kinetics400.kinetics400_description(
            sha256_of(backbone), name or kinetics400.NAME
        ),
        backbones={"rgb": backbone},
        cas=kinetics400.kinetics400_cas_onnx(weights),
        training={},
    )


def _checkpoint(folder: Path, backbone: bytes, name: str | None) -> Exported:
    raise InvalidArgument(f"no such source: {folder}")
