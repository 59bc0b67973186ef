"""The checkpoint folder: ``checkpoint.json`` says what it is, ``weights.safetensors`` holds it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import Field, model_validator

from backtal.errors import InvalidFile, NotFound
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import BundleDescription
from backtal.settings import Settings, read_json
from backtal_training.network import BackTALNetwork, NetworkSettings

DESCRIPTION_NAME = "checkpoint.json"
WEIGHTS_NAME = "weights.safetensors"


class CheckpointDescription(Settings):
    """All that export and serving must know of a trained network, and how it was trained."""

    schema_version: Literal[1] = 1
    bundle: BundleDescription
    network: NetworkSettings
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> CheckpointDescription:
        if self.network.feature_dim != self.bundle.feature_dim:
            raise ValueError(
                f"network.feature_dim {self.network.feature_dim} is not the sum of the "
                f"backbones' feature_dim, {self.bundle.feature_dim}"
            )
        if self.network.num_classes != len(self.bundle.classes):
            raise ValueError(
                f"network.num_classes {self.network.num_classes}, "
                f"but bundle.classes names {len(self.bundle.classes)}"
            )
        return self


def save(folder: Path, description: CheckpointDescription, network: BackTALNetwork) -> None:
    """Write the checkpoint folder: whole or not at all. An earlier one of that name is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        weights = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
        safetensors.torch.save_file(weights, draft / WEIGHTS_NAME)
        (draft / DESCRIPTION_NAME).write_text(description.model_dump_json(indent=2) + "\n")
        draft.chmod(0o755)
        _replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load(folder: Path) -> tuple[CheckpointDescription, BackTALNetwork]:
    """Read a checkpoint folder: its description and its network, in evaluation mode.

    Raises NotFound where a file is missing, InvalidFile where the description or the weights are
    not what they should be, by parameter and shape.
    """
    description = read_json(CheckpointDescription, folder / DESCRIPTION_NAME)
    network = BackTALNetwork(description.network)
    load_weights(network, read_weights(folder / WEIGHTS_NAME), source=str(folder / WEIGHTS_NAME))
    return description, network.eval()


def write_localization(
    folder: Path, localization: LocalizationSettings, tuning: dict[str, Any]
) -> None:
    """Put other localization settings into a checkpoint, and how they were found.

    The weights stay what they are. Raises NotFound or InvalidFile for what is no checkpoint.
    """
    path = folder / DESCRIPTION_NAME
    description = read_json(CheckpointDescription, path)
    bundle = description.bundle.model_copy(update={"localization": localization})
    training = {**description.training, "tuning": tuning}
    changed = description.model_copy(update={"bundle": bundle, "training": training})
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(changed.model_dump_json(indent=2) + "\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises NotFound or InvalidFile."""
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise InvalidFile(f"{path} is no safetensors file: {error}") from None


def load_weights(network: BackTALNetwork, weights: dict[str, torch.Tensor], *, source: str) -> None:
    """Put `weights` into `network`: every parameter, no other, each of its shape, all finite."""
    problems = []
    expected = network.state_dict()
    for name, parameter in expected.items():
        if name not in weights:
            problems.append(f"{name} is missing, expected shape {list(parameter.shape)}")
        elif weights[name].shape != parameter.shape:
            problems.append(
                f"{name} has shape {list(weights[name].shape)}, expected {list(parameter.shape)}"
            )
        elif not weights[name].is_floating_point():
            problems.append(f"{name} is {weights[name].dtype}, expected a floating-point type")
        elif not bool(torch.isfinite(weights[name]).all()):
            problems.append(f"{name} holds values that are not finite")
    problems += [
        f"{name} of shape {list(weights[name].shape)} is no parameter of this network"
        for name in sorted(set(weights) - set(expected))
    ]
    if problems:
        raise InvalidFile(f"{source}: " + "; ".join(problems))
    network.load_state_dict(weights)


def _replace(draft: Path, folder: Path) -> None:
    """Give `draft` the name `folder`. A folder in use cannot be renamed over, so it moves aside."""
    if not folder.exists():
        draft.rename(folder)
        return
    if not (folder / DESCRIPTION_NAME).exists() and any(folder.iterdir()):
        raise InvalidFile(f"{folder} exists and is no checkpoint; it is not replaced")
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.replace(aside)
    draft.rename(folder)
    shutil.rmtree(aside)
