"""Whether a repository is what its manifests say: files, hashes, configurations, gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import BacktalError, InvalidFile, NotFound
from backtal.manifest import MANIFEST_NAME, Manifest, Network
from backtal.repository import (
    STREAM_SUFFIX,
    bundle_names,
    bundle_versions,
    manifest_path,
    network_path,
)
from backtal.runtime import OnnxStages
from backtal_export.gates import GateThresholds, Measured, Validation, judge, measure
from backtal_export.model_folders import configuration_of, public_configuration
from backtal_export.onnx_file import facts_of, sha256_of


@dataclass(frozen=True)
class Checked:
    """A bundle's version that is whole, and what was measured of it, where it was."""

    bundle: str
    version: int
    measured: Measured | None


def verify(
    repository: Path,
    thresholds: GateThresholds | None = None,
    *,
    measured: bool = True,
    validation: Validation | None = None,
) -> Iterator[Checked]:
    """Check every version of every bundle, one after another; with `measured` the gates too.

    Raises NotFound where there is no bundle or a file is missing, InvalidFile by the file's name
    where it is not what the manifest says, GateFailed where a network is too far from float32.
    """
    names = bundle_names(repository)
    if not names:
        raise NotFound(f"{repository} holds no bundle")
    for name in names:
        for version in bundle_versions(repository, name):
            manifest = check_files(repository, name, version)
            found = None
            if measured and version == bundle_versions(repository, name)[-1]:
                found = remeasure(repository, manifest, thresholds or GateThresholds(), validation)
            yield Checked(name, version, found)


def check_files(repository: Path, bundle: str, version: int) -> Manifest:
    """The manifest of a version whose every file is there and as it says; see `verify`."""
    path = manifest_path(repository, bundle, version)
    manifest = Manifest.load(path)
    if manifest.description.name != bundle:
        raise InvalidFile(f"{path} is of the bundle {manifest.description.name}, not of {bundle}")
    for network in manifest.networks:
        _check_network(repository, manifest, network)
    is_newest = version == bundle_versions(repository, bundle)[-1]
    for model in (bundle, f"{bundle}{STREAM_SUFFIX}"):
        folder = repository / model / str(version)
        if _text(folder / MANIFEST_NAME) != manifest.to_text():
            raise InvalidFile(f"{folder / MANIFEST_NAME} differs from {path}")
        _text(folder / "model.py")
        config = repository / model / "config.pbtxt"
        # One configuration for all versions: it is the newest one's.
        if is_newest and _text(config) != public_configuration(manifest, model):
            raise InvalidFile(f"{config} is not what was written for version {version}")
    return manifest


def remeasure(
    repository: Path,
    manifest: Manifest,
    thresholds: GateThresholds,
    validation: Validation | None = None,
) -> Measured | None:
    """Measure a bundle's networks against the same files in float32, and judge them.

    None where all of them are ONNX Runtime's in float32, which is the measure itself.
    """
    exact = {"precision": "float32", "backend": "onnxruntime"}
    reference = manifest.model_copy(
        update={
            "backbones": {
                stream: network.model_copy(update=exact)
                for stream, network in manifest.backbones.items()
            },
            "cas": manifest.cas.model_copy(update=exact),
        }
    )
    if reference.networks == manifest.networks:
        return None
    found = measure(
        manifest, OnnxStages(repository, reference), OnnxStages(repository, manifest), validation
    )
    for stream, figures in found.backbones.items():
        judge(manifest.backbones[stream].model, figures, thresholds)
    judge(manifest.cas.model, found.cas, thresholds)
    return found


def _check_network(repository: Path, manifest: Manifest, network: Network) -> None:
    path = network_path(repository, network.model)
    if not path.is_file():
        raise NotFound(f"no such file: {path}, the network {network.model}")
    content = path.read_bytes()
    digest = sha256_of(content)
    if digest != network.sha256:
        raise InvalidFile(
            f"{path} has the SHA-256 {digest}, the manifest of {manifest.description.name} says "
            f"{network.sha256}"
        )
    try:
        facts = facts_of(content)
    except BacktalError as error:
        raise InvalidFile(f"{path}: {error.message}") from None
    if (facts.opset, facts.inputs, facts.outputs) != (
        network.opset,
        network.inputs,
        network.outputs,
    ):
        raise InvalidFile(f"{path} has other inputs, outputs or operators than the manifest says")
    config = repository / network.model / "config.pbtxt"
    if _text(config) != configuration_of(manifest, network):
        raise InvalidFile(f"{config} is not what was written for {network.model}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except UnicodeDecodeError:
        raise InvalidFile(f"{path} is no text") from None
