"""Put a bundle into the repository that is served, if it passes the gate on a golden set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import GateFailed, InvalidArgument
from backtal.manifest import Manifest
from backtal.repository import bundle_names, bundle_versions, load_bundle
from backtal.runtime import OnnxStages
from backtal_export.gates import GateThresholds, Validation, average_map
from backtal_export.model_folders import copy_networks, write_public_models
from backtal_export.verification import check_files, remeasure

GROUND_TRUTH_NAME = "ground_truth.json"


@dataclass(frozen=True)
class Published:
    """What was published: the version's number, its mAP on the golden set, the replaced one's."""

    bundle: str
    version: int
    golden_map: float
    replaced_map: float | None


def publish(
    source: Path,
    bundle: str,
    repository: Path,
    golden: Path,
    thresholds: GateThresholds | None = None,
    say: Callable[[str], None] = print,
) -> Published:
    """Copy the newest version of a bundle from one repository into another, past its gate.

    golden: a folder of a few videos' feature files with their ``ground_truth.json``. On it the
    networks are measured again against float32, and the bundle against the one that it replaces.
    The networks come before the bundle that names them, so that a server which watches the
    repository never sees half of it.

    Raises GateFailed, naming the figure, and then nothing is written; NotFound and InvalidFile
    for a repository that is not whole; InvalidArgument where the repositories' targets differ.
    """
    thresholds = thresholds or GateThresholds()
    if not bundle_versions(source, bundle):
        load_bundle(source, bundle)
    manifest = check_files(source, bundle, bundle_versions(source, bundle)[-1])
    validation = Validation.load(golden, golden / GROUND_TRUTH_NAME)
    say(f"measuring {bundle} on the {len(validation.sequences)} videos of {golden}")
    remeasure(source, manifest, thresholds, validation)
    golden_map = average_map(manifest, OnnxStages(source, manifest), validation)
    replaced_map = _replaced_map(repository, manifest, validation)
    if replaced_map is not None and not golden_map >= replaced_map - thresholds.maximum_map_drop:
        raise GateFailed(
            f"{bundle}: the mAP on the golden set is {golden_map:.4f}, that of the bundle it would "
            f"replace {replaced_map:.4f}: allowed is a fall of {thresholds.maximum_map_drop}"
        )
    copy_networks(source, manifest, repository)
    version = write_public_models(repository, manifest)
    return Published(bundle, version, golden_map, replaced_map)


def _replaced_map(repository: Path, manifest: Manifest, validation: Validation) -> float | None:
    """The mAP of the bundle that is replaced; None where there is none."""
    name = manifest.description.name
    if name not in bundle_names(repository):
        return None
    old = check_files(repository, name, bundle_versions(repository, name)[-1])
    if old.description.backbones != manifest.description.backbones:
        raise InvalidArgument(
            f"{name} in {repository} has the backbones "
            f"{', '.join(part.sha256 for part in old.description.backbones)}, the new one "
            f"{', '.join(part.sha256 for part in manifest.description.backbones)}: one golden set "
            f"cannot measure both, publish it under another name"
        )
    return average_map(old, OnnxStages(repository, old), validation)
