"""A run as it stands after an epoch, in one file: what a killed process goes on from.

One safetensors file, whose header carries the JSON: renamed into place when it is whole and on
disk, so that whenever the process is killed there is the old state or the new one. What is drawn
at random in an epoch is seeded by the run's seed and the epoch's number: no generator is saved.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from backtal.errors import InvalidFile
from backtal_training.datasets import Sample
from backtal_training.settings import Recipe, Supervision

FORMAT = "backtal-run-1"
_HEADER_KEY = "run"


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the mean of each loss term, and the held-out mAP if it was taken."""

    number: int
    losses: dict[str, float]
    held_out_map: float | None
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain data, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, apart from its tensors.

    fingerprint: of all that decides the result; num_steps: Adam's; best_epoch: the one with the
    best score so far, 0 for none.
    """

    fingerprint: str
    num_steps: int = 0
    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0

    @property
    def best_score(self) -> float:
        """Of `best_epoch`; minus infinity where there is none."""
        scores = [one.held_out_map for one in self.epochs if one.number == self.best_epoch]
        return scores[0] if scores and scores[0] is not None else float("-inf")

    @property
    def num_evaluations_since_best(self) -> int:
        """How many epochs after the best one were evaluated."""
        return sum(
            one.held_out_map is not None for one in self.epochs if one.number > self.best_epoch
        )


def fingerprint(
    samples: Sequence[Sample],
    validation: Sequence[Sample],
    recipe: Recipe,
    supervision: Supervision,
    num_processes: int,
) -> str:
    """A hash of what decides a run's result, save versions and threads."""
    told = hashlib.sha256(f"{FORMAT} {supervision} {num_processes}".encode())
    told.update(recipe.model_dump_json().encode())
    for part in (samples, validation):
        told.update(f"{len(part)} videos".encode())
        for sample in part:
            told.update(f"{sample.name} {sample.features.shape} {sample.instances}".encode())
            for array in (sample.features, sample.video_labels, sample.click_positions):
                told.update(array.tobytes())
    return told.hexdigest()


def save_state(path: Path, progress: Progress, tensors: dict[str, Tensor]) -> None:
    """Write the state, whole and on disk before it takes the place of the last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({**asdict(progress), "format": FORMAT})
    contents = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    draft = path.with_name(f".{path.name}.draft")
    safetensors.torch.save_file(contents, draft, {_HEADER_KEY: header})
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def load_state(path: Path, expected_fingerprint: str) -> tuple[Progress, dict[str, Tensor]]:
    """Read a state. InvalidFile where it is damaged, or of a run with other data or settings."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            raw = json.loads((file.metadata() or {})[_HEADER_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if raw.pop("format") != FORMAT:
            raise KeyError(FORMAT)
        raw["epochs"] = tuple(Epoch(**epoch) for epoch in raw["epochs"])
        progress = Progress(**raw)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InvalidFile(f"{path} is no state of a run: {error}") from None
    if progress.fingerprint != expected_fingerprint:
        raise InvalidFile(
            f"{path} is the state of a run with another recipe, other data or another number of "
            f"processes; remove it to begin anew"
        )
    return progress, tensors


@torch.no_grad()
def restore(live: dict[str, Tensor], saved: dict[str, Tensor], path: Path) -> None:
    """Copy `saved` into the tensors of the same names; InvalidFile where names do not match."""
    if set(live) != set(saved):
        odd = sorted(set(live) ^ set(saved))
        raise InvalidFile(f"{path}: tensors {odd[:3]} are missing or unknown")
    for name, tensor in live.items():
        if tensor.shape != saved[name].shape:
            raise InvalidFile(
                f"{path}: {name} has shape {list(saved[name].shape)}, expected {list(tensor.shape)}"
            )
        tensor.copy_(saved[name])
