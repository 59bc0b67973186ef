"""Put a bundle into the repository that is served, past its gate, and take it back again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import GateFailed, InvalidArgument, NotFound, VersionRefused
from backtal.manifest import Manifest
from backtal.repository import bundle_names, bundle_versions, load_bundle, manifest_path
from backtal_export.acceptance import wait_until_forgotten, wait_until_served
from backtal_export.cache import cannot_write
from backtal_export.drafts import only_writer
from backtal_export.gate_stages import as_served
from backtal_export.gates import GateThresholds, Validation, average_map
from backtal_export.model_folders import copy_networks
from backtal_export.public_models import remove_version, write_public_models
from backtal_export.verification import check_files, remeasure

GROUND_TRUTH_NAME = "ground_truth.json"


@dataclass(frozen=True)
class Published:
    """What was published: the version's number, its mAP on the golden set, the replaced one's."""

    bundle: str
    version: int
    golden_map: float
    replaced_map: float | None


@dataclass(frozen=True)
class RolledBack:
    """What a roll-back wrote: the new version, and the earlier one that it is a copy of."""

    bundle: str
    version: int
    copy_of: int


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
    repository never sees half of it. Others who publish there meanwhile wait.

    Raises GateFailed, naming the figure, and then nothing is written; NotFound and InvalidFile
    for a repository that is not whole; InvalidArgument where the repositories' targets differ;
    Unavailable where the repository cannot be written, and then there is no new version.
    """
    thresholds = thresholds or GateThresholds()
    if not bundle_versions(source, bundle):
        load_bundle(source, bundle)
    manifest = check_files(source, bundle, bundle_versions(source, bundle)[-1])
    validation = Validation.load(golden, golden / GROUND_TRUTH_NAME)
    say(f"measuring {bundle} on the {len(validation.sequences)} videos of {golden}")
    remeasure(source, manifest, thresholds, validation)
    golden_map = _golden_map(source, manifest, validation)
    with only_writer(repository, say):
        replaced_map = _replaced_map(repository, manifest, validation)
        allowed = thresholds.maximum_map_drop
        if replaced_map is not None and not golden_map >= replaced_map - allowed:
            raise GateFailed(
                f"{bundle}: the mAP on the golden set is {golden_map:.4f}, that of the bundle it "
                f"would replace {replaced_map:.4f}: allowed is a fall of {allowed}"
            )
        copy_networks(source, manifest, repository)
        version = _write(repository, manifest)
    return Published(bundle, version, golden_map, replaced_map)


def roll_back(
    repository: Path,
    bundle: str,
    to_version: int | None = None,
    say: Callable[[str], None] = print,
) -> RolledBack:
    """Write an earlier version again, as the newest.

    Numbers only rise, so that whoever watches sees a roll-back as one more publish. By default it
    is the highest version whose content differs from the newest one's: a second roll-back undoes
    the first. There is no gate, it was served before; its files are checked.

    Raises NotFound where there is no such version, or none before; else as `publish`.
    """
    if not bundle_versions(repository, bundle):
        load_bundle(repository, bundle)
    with only_writer(repository, say):
        versions = bundle_versions(repository, bundle)
        if to_version is None:
            to_version = _version_before(repository, bundle, versions)
        elif to_version not in versions:
            raise NotFound(f"{repository} has no version {to_version} of {bundle}, only {versions}")
        manifest = check_files(repository, bundle, to_version)
        version = _write(repository, manifest)
    return RolledBack(bundle, version, to_version)


def confirm(
    repository: Path, bundle: str, version: int, server: str, key: str | None = None
) -> None:
    """Wait until the service answers by the version; one that it refuses is taken back.

    Raises VersionRefused with the reason, Unavailable where the service did not say in time.
    """
    try:
        wait_until_served(server, bundle, version, key=key)
    except VersionRefused as error:
        with only_writer(repository):
            remove_version(repository, bundle, version)
            wait_until_forgotten(server, bundle, version, key=key)
        raise VersionRefused(f"{error.message}; the version is taken back") from None


def _write(repository: Path, manifest: Manifest) -> int:
    try:
        return write_public_models(repository, manifest)
    except OSError as error:
        raise cannot_write(repository, error) from error


def _version_before(repository: Path, bundle: str, versions: list[int]) -> int:
    newest, *earlier = reversed(versions)
    content = manifest_path(repository, bundle, newest).read_bytes()
    for version in earlier:
        if manifest_path(repository, bundle, version).read_bytes() != content:
            return version
    raise NotFound(f"{repository} has no version of {bundle} before version {newest}")


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
    return _golden_map(repository, old, validation)


def _golden_map(repository: Path, manifest: Manifest, validation: Validation) -> float:
    with as_served(repository, manifest) as stages:
        return average_map(manifest, stages, validation)
