"""The model repository as one server sees it: links to the models, our limits on the bundles.

A bundle's configuration is exported once and says nothing of the machine that serves it. So a
server reads a copy, with its own number of instances and length of queue. Where versions come and
go while it runs, the copy holds those that it is to serve, and no others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from backtal.errors import InvalidFile
from backtal.manifest import MANIFEST_NAME, Manifest
from backtal.repository import public_models
from backtal_serving.limits import RequestLimits

CONFIG_NAME = "config.pbtxt"
VARIANTS_NAME = "configs"
# No bundle's name has capitals.
TRIAL_PREFIX = "TRIAL-"
ANY_LENGTH = -1


def write_view(repository: Path, folder: Path, limits: RequestLimits) -> Path:
    """Write the view of all of `repository` into the new `folder`, which is returned.

    Raises InvalidFile for a bundle's configuration that cannot be read.
    """
    folder.mkdir()
    for model in sorted(repository.resolve().iterdir()):
        # Hidden: what is being written.
        if model.name.startswith("."):
            continue
        if any(model.glob(f"*/{MANIFEST_NAME}")):
            _write_bundle(model, folder / model.name, limits)
        else:
            (folder / model.name).symlink_to(model)
    return folder


class RepositoryView:
    """A view in `folder`, empty at first, of what is served of `repository`.

    Each method raises InvalidFile for a configuration that cannot be read, OSError for a disk.
    """

    def __init__(self, repository: Path, folder: Path, limits: RequestLimits) -> None:
        self._repository = repository.resolve()
        self.folder = folder
        self._limits = limits
        folder.mkdir(exist_ok=True)

    def show_network(self, model: str) -> None:
        """Show a network."""
        self.remove(model)
        (self.folder / model).symlink_to(self._repository / model)

    def show_bundle(self, bundle: str, versions: Sequence[tuple[int, Manifest]]) -> None:
        """Show these versions of the bundle, and of its stream, and no others."""
        for model in public_models(bundle):
            self._show(model, model, versions, self._limits)

    def show_trial(self, bundle: str, version: tuple[int, Manifest]) -> str:
        """Show one version, with one instance, as a model that no caller knows; its name."""
        trial = TRIAL_PREFIX + bundle
        limits = self._limits.model_copy(update={"at_once": 1})
        self._show(bundle, trial, [version], limits)
        return trial

    def remove(self, model: str) -> None:
        """Show a model no more."""
        path = self.folder / model
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)

    def _show(
        self,
        model: str,
        shown_as: str,
        versions: Sequence[tuple[int, Manifest]],
        limits: RequestLimits,
    ) -> None:
        source, target = self._repository / model, self.folder / shown_as
        texts = {
            entry.relative_to(source): _shown_config(entry, shown_as, limits, versions)
            for entry in (source / CONFIG_NAME, *(source / VARIANTS_NAME).glob("*.pbtxt"))
        }
        target.mkdir(exist_ok=True)
        for name, text in texts.items():
            path = target / name
            path.parent.mkdir(exist_ok=True)
            # Triton loads a model anew, with all its versions, when its configuration is newer.
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        wanted = {str(number) for number, _ in versions}
        for entry in target.iterdir():
            if entry.is_symlink() and entry.name not in wanted:
                entry.unlink()
        for number in wanted:
            if not (target / number).is_symlink():
                (target / number).symlink_to(source / number)


def _write_bundle(model: Path, target: Path, limits: RequestLimits) -> None:
    target.mkdir()
    for entry in model.iterdir():
        if entry.name == CONFIG_NAME:
            (target / entry.name).write_text(limited(entry, limits))
        elif entry.name == VARIANTS_NAME:
            (target / entry.name).mkdir()
            for variant in entry.glob("*.pbtxt"):
                (target / entry.name / variant.name).write_text(limited(variant, limits))
        else:
            (target / entry.name).symlink_to(entry)


def limited(config: Path, limits: RequestLimits) -> str:
    """A model's configuration with `limits` in place of its own. Raises InvalidFile."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(_parsed(config, limits)))


def _parsed(config: Path, limits: RequestLimits) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise InvalidFile(f"{config} is no model configuration: {error}") from None
    for group in parsed.instance_group:
        group.count = limits.at_once
    # The queue belongs to the batcher; without a batch size it batches nothing.
    policy = parsed.dynamic_batching.default_queue_policy
    policy.max_queue_size = limits.queued
    return parsed


def _shown_config(
    config: Path,
    shown_as: str,
    limits: RequestLimits,
    versions: Iterable[tuple[int, Manifest]],
) -> str:
    """One configuration for several versions: a size in which they differ may have any length."""
    from google.protobuf import text_format

    parsed = _parsed(config, limits)
    if shown_as.startswith(TRIAL_PREFIX):
        parsed.name = shown_as
    parsed.version_policy.all.SetInParent()
    descriptions = [manifest.description for _, manifest in versions]
    sizes = {
        "features": {description.feature_dim for description in descriptions},
        "cas": {description.cas_channels for description in descriptions},
    }
    for tensor in (*parsed.input, *parsed.output):
        if tensor.name in sizes:
            size, *others = sizes[tensor.name]
            tensor.dims[0] = ANY_LENGTH if others else size
    return str(text_format.MessageToString(parsed))
