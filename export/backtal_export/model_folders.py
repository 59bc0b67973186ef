"""Write a bundle into a Triton model repository: whole or not at all.

    <backbone>-<hash8>/   config.pbtxt, 1/model.onnx                    shared by bundles
    cas-<hash8>/          config.pbtxt, 1/model.onnx
                          and 1/float32.onnx, where model.onnx is a file in float16
    <bundle>/             config.pbtxt, N/model.py, N/manifest.json, N/model_card.md
    <bundle>_stream/      the same, decoupled: progress, then the answer

Every folder is made under a hidden name beside its place and renamed into it, the networks before
the bundle that names them. A network whose content is there already is left alone, and so is a
bundle whose highest version is the same. Else the bundle gets a new version beside the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtal.errors import InvalidArgument
from backtal.manifest import (
    BundleDescription,
    GateFigures,
    Manifest,
    Network,
    StreamName,
    Target,
)
from backtal.repository import (
    FLOAT32_FILE,
    NETWORK_FILE,
    STREAM_SUFFIX,
    bundle_names,
    bundle_versions,
    float32_path,
    load_bundle,
    network_path,
)
from backtal_export.cache import cannot_write
from backtal_export.drafts import draft_beside, rename_over
from backtal_export.float16 import to_float16
from backtal_export.onnx_file import facts_of, sha256_of
from backtal_export.public_models import write_public_models
from backtal_export.runtimes import (
    REFERENCE,
    Profile,
    Runtime,
    fill_template,
    instance_kind,
    runtime_options,
)

_MAGNITUDE = """,
  { name: "magnitude" data_type: TYPE_FP32 dims: [ -1, -1 ] }"""


@dataclass(frozen=True)
class Variant:
    """A network as it is served: its file, what computes it, and the gate that it passed.

    float32: the file that it was made from, where `file` holds the precision itself.
    """

    file: bytes
    runtime: Runtime = REFERENCE
    figures: GateFigures | None = None
    float32: bytes | None = None

    @classmethod
    def of(cls, file: bytes, runtime: Runtime) -> Variant:
        """A float32 network for a runtime, not measured yet."""
        if runtime.precision == "float16":
            return cls(to_float16(file), runtime, float32=file)
        return cls(file, runtime)

    @property
    def files(self) -> Mapping[str, bytes]:
        """What lies in the model's folder, by name."""
        reference = {} if self.float32 is None else {FLOAT32_FILE: self.float32}
        return {NETWORK_FILE: self.file, **reference}


@dataclass(frozen=True)
class Exported:
    """A bundle's networks as model files, and what the bundle says of itself.

    backbones: a model file for each stream of the description, in float32, its hash being the one
    that the description names, or none at all for a bundle that takes features only; cas: the CAS
    network's; training: how it was trained, for the manifest. backbone_variants, cas_variant: what
    is served in their place; the files themselves where there is none. target, source,
    library_versions: see `Manifest`.
    """

    description: BundleDescription
    backbones: Mapping[StreamName, bytes]
    cas: bytes
    training: Mapping[str, Any]
    backbone_variants: Mapping[StreamName, Variant] = field(default_factory=dict)
    cas_variant: Variant | None = None
    target: Target = "embedded"
    source: str = ""
    library_versions: Mapping[str, str] = field(default_factory=dict)

    def backbone(self, stream: StreamName) -> Variant:
        """What is served for the stream."""
        return self.backbone_variants.get(stream) or Variant(self.backbones[stream])

    @property
    def served_cas(self) -> Variant:
        """What is served as the CAS network."""
        return self.cas_variant or Variant(self.cas)


def write_exported(repository: Path, exported: Exported) -> Manifest:
    """Write the bundle and give its manifest. A bundle of that name gets another version.

    Raises InvalidArgument where the description's backbone is another one than the file given,
    its name is taken by something else, or the repository is for another target; Unavailable
    where the repository cannot be written.
    """
    manifest = _manifest(exported)
    _check_place(repository, manifest)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for stream, network in manifest.backbones.items():
            config = configuration_of(manifest, network)
            _write_network(repository, network, config, exported.backbone(stream).files)
        config = configuration_of(manifest, manifest.cas)
        _write_network(repository, manifest.cas, config, exported.served_cas.files)
        write_public_models(repository, manifest)
    except OSError as error:
        raise cannot_write(repository, error) from error
    return manifest


def copy_networks(source: Path, manifest: Manifest, repository: Path) -> None:
    """Copy a bundle's networks from one repository into another, where they are not there yet.

    Raises as `write_exported` does.
    """
    _check_place(repository, manifest)
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for network in manifest.networks:
            paths = {network_path(source, network.model), float32_path(source, network)}
            files = {path.name: path.read_bytes() for path in paths}
            _write_network(repository, network, configuration_of(manifest, network), files)
    except OSError as error:
        raise cannot_write(repository, error) from error


def _manifest(exported: Exported) -> Manifest:
    description = exported.description
    if description.name.endswith(STREAM_SUFFIX):
        raise InvalidArgument(f"a bundle's name may not end in {STREAM_SUFFIX}: {description.name}")
    networks: dict[StreamName, Network] = {}
    for backbone in description.backbones if exported.backbones else ():
        if backbone.stream not in exported.backbones:
            raise InvalidArgument(f"no model file for the stream {backbone.stream}")
        digest = sha256_of(exported.backbones[backbone.stream])
        if digest != backbone.sha256:
            raise InvalidArgument(
                f"{description.name} was made with the backbone {backbone.sha256}, "
                f"the {backbone.name} at hand is {digest}"
            )
        networks[backbone.stream] = _network(backbone.name, exported.backbone(backbone.stream))
    return Manifest(
        description=description,
        backbones=networks,
        cas=_network("cas", exported.served_cas),
        target=exported.target,
        source=exported.source,
        training=dict(exported.training),
        library_versions=dict(exported.library_versions),
    )


def _check_place(repository: Path, manifest: Manifest) -> None:
    name = manifest.description.name
    for model in (name, f"{name}{STREAM_SUFFIX}"):
        folder = repository / model
        if folder.exists() and not bundle_versions(repository, model):
            raise InvalidArgument(f"{folder} exists and is no bundle: it is not replaced")
    for bundle in bundle_names(repository):
        target = load_bundle(repository, bundle).target
        if target != manifest.target:
            raise InvalidArgument(
                f"{repository} is for the target {target}, as its bundle {bundle} says: "
                f"take another folder for {manifest.target}"
            )


def _network(prefix: str, variant: Variant) -> Network:
    digest = sha256_of(variant.file)
    facts = facts_of(variant.file)
    return Network(
        model=f"{prefix}-{digest[:8]}{variant.runtime.suffix}",
        sha256=digest,
        precision=variant.runtime.precision,
        backend=variant.runtime.backend,
        opset=facts.opset,
        inputs=facts.inputs,
        outputs=facts.outputs,
        figures=variant.figures,
        float32_sha256=None if variant.float32 is None else sha256_of(variant.float32),
    )


def configuration_of(manifest: Manifest, network: Network) -> str:
    """The config.pbtxt of one of the bundle's networks."""
    description = manifest.description
    values: dict[str, object]
    if network.model == manifest.cas.model:
        template, profile = "cas", Profile.of_features(description.feature_dim)
        values = {
            "feature_dim": description.feature_dim,
            "channels": description.cas_channels,
            "magnitude": _MAGNITUDE if description.cas.magnitude else "",
        }
    else:
        plan = description.clip_plan
        stream = next(name for name, net in manifest.backbones.items() if net == network)
        dims = {backbone.stream: backbone.feature_dim for backbone in description.backbones}
        shape = plan.clip_shape(stream)
        kind = "TYPE_UINT8" if plan.takes_frames(stream) else "TYPE_FP32"
        clips = f"data_type: {kind} dims: [ -1, {', '.join(map(str, shape))} ]"
        template, profile = "backbone", Profile.of_clips(shape)
        values = {"feature_dim": dims[stream], "clips": clips}
    runtime = Runtime(network.precision, network.backend)
    return fill_template(
        template,
        name=network.model,
        backend=network.backend,
        kind=instance_kind(manifest.target),
        options=runtime_options(manifest.target, runtime, network.model, profile),
        **values,
    )


def _write_network(
    repository: Path, network: Network, config: str, files: Mapping[str, bytes]
) -> None:
    folder = network_path(repository, network.model).parent
    configured = repository / network.model / "config.pbtxt"
    if (
        configured.is_file()
        and configured.read_text() == config
        and all(_holds(folder / name, content) for name, content in files.items())
    ):
        return
    with draft_beside(repository / network.model) as draft:
        (draft / "1").mkdir()
        (draft / "config.pbtxt").write_text(config)
        for name, content in files.items():
            (draft / "1" / name).write_bytes(content)
        rename_over(draft, repository / network.model)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
