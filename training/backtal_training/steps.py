"""One step of training: forward, losses, backward, the gradients' norm, Adam, the average."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from backtal_training.adam import Adam
from backtal_training.batches import Batch
from backtal_training.losses import frame_losses, losses, pseudo_losses
from backtal_training.network import BackTALNetwork
from backtal_training.processes import Processes
from backtal_training.settings import Recipe, Supervision


def step(
    network: BackTALNetwork,
    adam: Adam,
    batch: Batch,
    recipe: Recipe,
    supervision: Supervision = "clicks",
    processes: Processes | None = None,
) -> dict[str, Tensor]:
    """Move the network by one batch, and give each loss term, on the device: nothing waits.

    With several processes each has the whole batch, computes its share and gives its share's
    part of the terms: their sum over the processes is the batch's.
    """
    processes = processes or Processes()
    share = batch.share(processes.rank, processes.count)
    weight = share.num_videos / batch.num_videos
    adam.zero_grad()
    terms: dict[str, Tensor] = {}
    if share.num_videos:
        terms = batch_losses(network, share, recipe, supervision, processes.device)
        torch.autograd.backward(terms["total"])
    parameters = list(network.parameters())
    processes.average_gradients(parameters, weight)
    if recipe.optimizer.clip_norm is not None:
        clip_gradients(parameters, recipe.optimizer.clip_norm)
    adam.step()
    return {name: value.detach() * weight for name, value in terms.items()}


def batch_losses(
    network: BackTALNetwork,
    batch: Batch,
    recipe: Recipe,
    supervision: Supervision,
    device: torch.device,
) -> dict[str, Tensor]:
    """Each loss term of a batch, scalars; ``total`` is what is trained on."""
    padded = int(batch.lengths.min()) < batch.features.shape[-1]
    batch = batch.to(device)
    bfloat16 = recipe.optimizer.precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext():
        output = network(batch.features, batch.lengths if padded else None)
    output = output.float()
    if supervision == "frames":
        return {"total": frame_losses(output, batch.frame_labels, recipe.losses)}
    terms = dict(vars(losses(output, batch.video_labels, batch.click_labels, recipe.losses)))
    if recipe.relabel.pseudo_weight:
        terms["pseudo"] = pseudo_losses(output, batch.frame_labels)
        terms["total"] = terms["total"] + recipe.relabel.pseudo_weight * terms["pseudo"]
    return terms


@torch.no_grad()
def clip_gradients(parameters: Sequence[Tensor], longest: float) -> None:
    """Shorten all gradients together to a norm of `longest`, where it is above."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    factor = (longest / torch.linalg.vector_norm(norms).clamp(min=1e-12)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor)


@torch.no_grad()
def move_average(
    average: BackTALNetwork, network: BackTALNetwork, decay: float, num_steps: int
) -> None:
    """Move the average; early on it follows faster, so that the first weights are forgotten."""
    decay = min(decay, num_steps / (num_steps + 10))
    for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1 - decay)
