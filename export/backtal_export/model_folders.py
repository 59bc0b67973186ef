"""Write a bundle into a Triton model repository: whole or not at all.

    <backbone>-<hash8>/   config.pbtxt, 1/model.onnx                    shared by bundles
    cas-<hash8>/          config.pbtxt, 1/model.onnx
    <bundle>/             config.pbtxt, 1/model.py, 1/manifest.json     the public model
    <bundle>_stream/      the same, decoupled: progress, then the answer

Every folder is made under a hidden name beside its place and renamed into it, the networks before
the bundle that names them. A network whose content is there already is left alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from backtal.errors import InvalidArgument
from backtal.manifest import MANIFEST_NAME, BundleDescription, Manifest, Network, StreamName
from backtal_export.cache import cannot_write
from backtal_export.onnx_file import sha256_of

TEMPLATES = Path(__file__).parent / "model_repository"
STREAM_SUFFIX = "_stream"

_MAGNITUDE = """,
  { name: "magnitude" data_type: TYPE_FP32 dims: [ -1, -1 ] }"""
_PROGRESS = """,
  { name: "progress" data_type: TYPE_FP32 dims: [ 2 ] }"""


@dataclass(frozen=True)
class Exported:
    """A bundle's networks as model files, and what the bundle says of itself.

    backbones: a model file for each stream of the description, its hash being the one that the
    description names, or none at all for a bundle that takes features only; cas: the CAS
    network's; training: how it was trained, for the manifest.
    """

    description: BundleDescription
    backbones: Mapping[StreamName, bytes]
    cas: bytes
    training: Mapping[str, Any]


def write_exported(repository: Path, exported: Exported) -> Manifest:
    """Write the bundle and give its manifest. A bundle of that name is replaced.

    Raises InvalidArgument where the description's backbone is another one than the file given,
    or its name is taken by something else; Unavailable where the repository cannot be written.
    """
    manifest = _manifest(exported)
    _check_free(repository, manifest.description.name)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for stream, network in manifest.backbones.items():
            dim = next(b.feature_dim for b in manifest.description.backbones if b.stream == stream)
            config = _fill("backbone", name=network.model, feature_dim=dim)
            _write_network(repository, network, config, exported.backbones[stream])
        _write_network(repository, manifest.cas, _cas_config(manifest), exported.cas)
        _write_bundle(repository, manifest, decoupled=True)
        _write_bundle(repository, manifest, decoupled=False)
    except OSError as error:
        raise cannot_write(repository, error) from error
    return manifest


def _manifest(exported: Exported) -> Manifest:
    description = exported.description
    if description.name.endswith(STREAM_SUFFIX):
        raise InvalidArgument(f"a bundle's name may not end in {STREAM_SUFFIX}: {description.name}")
    networks: dict[StreamName, Network] = {}
    for backbone in description.backbones if exported.backbones else ():
        if backbone.stream not in exported.backbones:
            raise InvalidArgument(f"no model file for the stream {backbone.stream}")
        network = _network(backbone.name, exported.backbones[backbone.stream])
        if network.sha256 != backbone.sha256:
            raise InvalidArgument(
                f"{description.name} was made with the backbone {backbone.sha256}, "
                f"the {backbone.name} at hand is {network.sha256}"
            )
        networks[backbone.stream] = network
    return Manifest(
        description=description,
        backbones=networks,
        cas=_network("cas", exported.cas),
        training=dict(exported.training),
    )


def _check_free(repository: Path, name: str) -> None:
    for folder in (repository / name, repository / f"{name}{STREAM_SUFFIX}"):
        if folder.exists() and not (folder / "1" / MANIFEST_NAME).is_file():
            raise InvalidArgument(f"{folder} exists and is no bundle: it is not replaced")


def _network(prefix: str, model_file: bytes) -> Network:
    digest = sha256_of(model_file)
    return Network(model=f"{prefix}-{digest[:8]}", sha256=digest)


def _cas_config(manifest: Manifest) -> str:
    description = manifest.description
    return _fill(
        "cas",
        name=manifest.cas.model,
        feature_dim=description.feature_dim,
        channels=description.cas_channels,
        magnitude=_MAGNITUDE if description.cas.magnitude else "",
    )


def _write_network(repository: Path, network: Network, config: str, model_file: bytes) -> None:
    folder = repository / network.model
    present = folder / "1" / "model.onnx"
    configured = folder / "config.pbtxt"
    if (
        present.is_file()
        and configured.is_file()
        and configured.read_text() == config
        and sha256_of(present.read_bytes()) == network.sha256
    ):
        return
    with _appearing_whole(folder) as draft:
        (draft / "config.pbtxt").write_text(config)
        (draft / "1" / "model.onnx").write_bytes(model_file)


def _write_bundle(repository: Path, manifest: Manifest, *, decoupled: bool) -> None:
    description = manifest.description
    name = description.name + (STREAM_SUFFIX if decoupled else "")
    with _appearing_whole(repository / name) as draft:
        config = _fill(
            "bundle",
            name=name,
            feature_dim=description.feature_dim,
            channels=description.cas_channels,
            progress=_PROGRESS if decoupled else "",
            decoupled=str(decoupled).lower(),
        )
        (draft / "config.pbtxt").write_text(config)
        shutil.copyfile(TEMPLATES / "bundle" / "1" / "model.py", draft / "1" / "model.py")
        manifest.save(draft / "1" / MANIFEST_NAME)


def _fill(template: str, **values: object) -> str:
    text = (TEMPLATES / template / "config.pbtxt").read_text(encoding="utf-8")
    return Template(text).substitute(values)


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder with a ``1/`` in it that becomes `folder` when the block ends."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        draft = scratch / "new"
        (draft / "1").mkdir(parents=True)
        yield draft
        _rename_over(draft, folder, aside=scratch / "old")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rename_over(draft: Path, folder: Path, *, aside: Path) -> None:
    if not folder.exists():
        draft.rename(folder)
        return
    # A folder that is not empty cannot be renamed over.
    folder.rename(aside)
    try:
        draft.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
