"""Affinity: how alike neighbouring positions are, and the convolution that is weighted by it.

METHOD, Network. Two layouts of one kernel of width 3 (taps -1, 0, 1):

- ``paper``: tap j of every channel is weighted by the affinity to neighbour j.
- ``released``: what the published code does. Its unfolded input is channel-major, its affinities
  tap-major, so row i of the unfolded input (channel ``i // 3``, tap ``i % 3``) is weighted by
  affinity ``i // D``.

In both, the kernel falls into pieces of one tap and neighbouring channels that share one affinity:
three, or nine in the released layout. `affinity_products` computes with these.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal_training.affinity_products import (
    TAPS,
    Piece,
    unfiltered_and_filtered,
    weighted,
)

Layout = Literal["paper", "released"]


def affinity(embedding: Tensor) -> Tensor:
    """Cosines of each position with its neighbours: [B, 3, T] from unit vectors [B, E, T].

    A neighbour that is the zero vector (beyond an end, or padding) has affinity 0. The centre is
    1 by definition, not by a product that would only be 1 up to rounding.
    """
    following = (embedding[..., :-1] * embedding[..., 1:]).sum(dim=1)
    left = functional.pad(following, (1, 0))
    right = functional.pad(following, (0, 1))
    return torch.stack([left, torch.ones_like(left), right], dim=1)


def pieces(layout: Layout, in_channels: int) -> tuple[Piece, ...]:
    """The kernel's pieces, which cover every tap of every channel once."""
    if layout == "paper":
        return tuple(Piece(tap, tap, 0, in_channels) for tap in range(TAPS))
    found = []
    for tap in range(TAPS):
        for block in range(TAPS):
            # The channels c of this tap with (c * TAPS + tap) // in_channels == block.
            first = -(-(block * in_channels - tap) // TAPS)
            last = -(-((block + 1) * in_channels - tap) // TAPS)
            first, last = max(0, first), min(in_channels, last)
            if first < last:
                found.append(Piece(tap, block, first, last))
    return tuple(found)


class AffinityConvolution(nn.Module):
    """Convolution of width 3 without bias whose taps are weighted by the affinity.

    `weight` has the released shape [out, D, 3], but lies in memory as [out, 3, D]: a piece of it
    is then a matrix as products want it, and so is its gradient.
    """

    def __init__(self, in_channels: int, out_channels: int, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.pieces = pieces(layout, in_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, TAPS, in_channels).transpose(1, 2))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, rows: Tensor, affinity: Tensor) -> Tensor:
        """[B, T, D] and affinities [B, 3, T] -> [B, T, out]."""
        return weighted(rows, affinity, self.weight, self.pieces)

    def both(self, rows: Tensor, affinity: Tensor, foreground: Tensor) -> Tensor:
        """Of `rows` and of `foreground * rows`: [2B, T, out], the unfiltered ones first.

        rows [B, T, D], affinity [B, 3, T], foreground [B, T]. Rows get no gradient: they are data.
        """
        return unfiltered_and_filtered(rows, affinity, foreground, self.weight, self.pieces)
