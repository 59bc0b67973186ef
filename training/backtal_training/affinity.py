"""Affinity: how alike neighbouring positions are, and the convolution that is weighted by it.

METHOD, Network. Two layouts of one kernel of width 3 (taps -1, 0, 1):

- ``paper``: tap j of every channel is weighted by the affinity to neighbour j.
- ``released``: what the published code does. Its unfolded input is channel-major, its affinities
  tap-major, so row i of the unfolded input (channel ``i // 3``, tap ``i % 3``) is weighted by
  affinity ``i // D``.

In both, the unfolded input falls into three blocks of D rows that share one affinity each, so the
convolution is three products, each scaled by its affinity: nothing of the affinity is tiled.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Layout = Literal["paper", "released"]

TAPS = 3


def neighbours(sequence: Tensor) -> Tensor:
    """[B, D, T] -> [B, D, 3, T]: each position's left neighbour, itself, its right neighbour.

    Beyond either end the neighbour is the zero vector.
    """
    length = sequence.shape[-1]
    padded = functional.pad(sequence, (1, 1))
    return torch.stack([padded[..., tap : tap + length] for tap in range(TAPS)], dim=2)


def affinity(embedding: Tensor) -> Tensor:
    """Cosines of each position with its neighbours: [B, 3, T] from unit vectors [B, E, T].

    A neighbour that is the zero vector (beyond an end, or padding) has affinity 0. The centre is
    1 by definition, not by a product that would only be 1 up to rounding.
    """
    following = (embedding[..., :-1] * embedding[..., 1:]).sum(dim=1)
    left = functional.pad(following, (1, 0))
    right = functional.pad(following, (0, 1))
    return torch.stack([left, torch.ones_like(left), right], dim=1)


class AffinityConvolution(nn.Module):
    """Convolution of width 3 without bias whose taps are weighted by the affinity."""

    def __init__(self, in_channels: int, out_channels: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, TAPS))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, sequence: Tensor, affinity: Tensor) -> Tensor:
        """[B, D, T] and affinities [B, 3, T] -> [B, out, T]."""
        if self.layout == "paper":
            return self._paper(sequence, affinity)
        return self._released(sequence, affinity)

    def _paper(self, sequence: Tensor, affinity: Tensor) -> Tensor:
        around = functional.pad(sequence, (1, 1))
        length = sequence.shape[-1]
        products = [
            affinity[:, tap, None] * (self.weight[:, :, tap] @ around[..., tap : tap + length])
            for tap in range(TAPS)
        ]
        return products[0] + products[1] + products[2]

    def _released(self, sequence: Tensor, affinity: Tensor) -> Tensor:
        channels = sequence.shape[1]
        rows = neighbours(sequence).flatten(1, 2)
        weight = self.weight.flatten(1, 2)
        blocks = [slice(block * channels, (block + 1) * channels) for block in range(TAPS)]
        products = [
            affinity[:, block, None] * (weight[:, block_rows] @ rows[:, block_rows])
            for block, block_rows in enumerate(blocks)
        ]
        return products[0] + products[1] + products[2]
