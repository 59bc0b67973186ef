"""The processes of a run that `torchrun` started: one a GPU, or several on the CPU.

Each process takes its share of every batch; gradients are averaged, weighted by the number of
videos. Where a term is a mean over clicks, or over the videos that have some, it is so over a
process's own share: as good a gradient, but not to the bit that of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from backtal.errors import InvalidArgument

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run. One alone is the default."""

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU

    @property
    def is_first(self) -> bool:
        """Whether this one evaluates, writes and reports."""
        return self.rank == 0

    def average_gradients(self, parameters: Sequence[Tensor], share: float) -> None:
        """Sum over the processes of their gradients times their `share` of the batch."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).mul_(share)
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(values)
        return values

    def from_first(self, value: float | None) -> float | None:
        """What the first process has, in all."""
        if self.count == 1:
            return value
        held = torch.tensor(float("nan") if value is None else value, dtype=torch.float64)
        held = held.to(self.device)
        distributed.broadcast(held, 0)
        return None if bool(held.isnan()) else held.item()

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device_name: str | None = None) -> Iterator[Processes]:
    """Join the run that torchrun's environment names, or be one alone.

    device_name: ``cpu`` or ``cuda``, by default the GPU where there is one. Raises
    InvalidArgument for a device that this machine does not have.
    """
    name = device_name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InvalidArgument(f"device {name!r}, allowed are 'cpu' and 'cuda'")
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument("device 'cuda': this machine has no GPU that PyTorch can use")
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if name == "cuda" else torch.device("cpu")
    if name == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(device=device)
        return
    distributed.init_process_group("nccl" if name == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()
