"""Whether a repository is what its manifests say: files, hashes, configurations, gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import BacktalError, InvalidFile, NotFound
from backtal.integrity import check_version, text_of
from backtal.manifest import Manifest, Network
from backtal.repository import bundle_names, bundle_versions, network_path, public_models
from backtal_export.gate_stages import as_served, float32_manifest, in_float32
from backtal_export.gates import GateThresholds, Measured, Validation, judge, measure
from backtal_export.model_folders import configuration_of
from backtal_export.onnx_file import facts_of
from backtal_export.public_models import public_configuration


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
    manifest = check_version(repository, bundle, version)
    for network in manifest.networks:
        _check_network(repository, manifest, network)
    # One configuration for all versions: it is the newest one's.
    if version == bundle_versions(repository, bundle)[-1]:
        for model in public_models(bundle):
            config = repository / model / "config.pbtxt"
            if text_of(config) != public_configuration(manifest, model):
                raise InvalidFile(f"{config} is not what was written for version {version}")
    return manifest


def remeasure(
    repository: Path,
    manifest: Manifest,
    thresholds: GateThresholds,
    validation: Validation | None = None,
) -> Measured | None:
    """Measure a bundle's networks against the same in float32, and judge them.

    None where all of them are ONNX Runtime's in float32, which is the measure itself.
    """
    if float32_manifest(manifest).networks == manifest.networks:
        return None
    with in_float32(repository, manifest) as exact, as_served(repository, manifest) as served:
        found = measure(manifest, exact, served, validation)
    for stream, figures in found.backbones.items():
        judge(manifest.backbones[stream].model, figures, thresholds)
    judge(manifest.cas.model, found.cas, thresholds)
    return found


def _check_network(repository: Path, manifest: Manifest, network: Network) -> None:
    path = network_path(repository, network.model)
    try:
        facts = facts_of(path.read_bytes())
    except BacktalError as error:
        raise InvalidFile(f"{path}: {error.message}") from None
    if (facts.opset, facts.inputs, facts.outputs) != (
        network.opset,
        network.inputs,
        network.outputs,
    ):
        raise InvalidFile(f"{path} has other inputs, outputs or operators than the manifest says")
    config = repository / network.model / "config.pbtxt"
    if text_of(config) != configuration_of(manifest, network):
        raise InvalidFile(f"{config} is not what was written for {network.model}")
