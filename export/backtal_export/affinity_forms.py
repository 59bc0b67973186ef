"""Ways of writing the affinity convolution for a runtime: one answer, different products.

METHOD, Network: ``y[t] = sum_j a[t, j] W_j x[t + j]``. All forms take positions before channels,
[B, L, D], and the affinities to the left and the right neighbour, [B, L, 1]; nothing has the size
of an affinity tiled over channels. `benchmarks/head.py` times them.

- `unfold`: the unfolded input [B, L, 3 D], weighted, one product.
- `products`: the rows of the unfolded input that share an affinity, one product for each of the
  three affinities, weighted after.
- `grouped`: the same three as one grouped convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal.networks import Backend

Form = Literal["unfold", "products", "grouped"]
FORMS: tuple[Form, ...] = ("unfold", "products", "grouped")
# The fastest in each (docs/benchmarks.md). In bfloat16 `products` is also the closest: what is
# rounded is not weighted yet.
FASTEST_FORM: Mapping[Backend, Form] = {"onnxruntime": "unfold", "openvino": "products"}

TAPS = 3
CENTRE = 1

# (tap, first channel, end channel, neighbour): which affinity weighs which rows.
Part = tuple[int, int, int, int]


def affinity_convolution(kernel: Tensor, *, released: bool, form: Form) -> nn.Module:
    """The module (sequence, left, right) -> [B, L, out] of `kernel` [out, D, 3]."""
    parts = affinity_parts(kernel.shape[1], released=released)
    if form == "unfold":
        return _Unfold(kernel, parts)
    by_neighbour = [[part for part in parts if part[3] == tap] for tap in range(TAPS)]
    if form == "products":
        return _Products(kernel, by_neighbour)
    return _Grouped(kernel, by_neighbour)


def affinity_parts(channels: int, *, released: bool) -> list[Part]:
    """Which affinity weights what, tap by tap.

    In the paper's layout tap j is weighted by the affinity to neighbour j. In the released one,
    tap j of channel c is row ``c * 3 + j`` of the unfolded input and is weighted by the affinity
    to neighbour ``(c * 3 + j) // D``: runs of channels, whose borders differ from tap to tap.
    """
    if not released:
        return [(tap, 0, channels, tap) for tap in range(TAPS)]
    parts: list[Part] = []
    for tap in range(TAPS):
        borders = [-(-(block * channels - tap) // TAPS) for block in range(TAPS + 1)]
        borders[0], borders[-1] = 0, channels
        parts += [
            (tap, borders[block], borders[block + 1], block)
            for block in range(TAPS)
            if borders[block] < borders[block + 1]
        ]
    return parts


def taps(sequence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each position's left neighbour, itself and its right neighbour; beyond the ends it is 0."""
    # Bounds counted from the end are constants, where a length is a chain of nodes in the graph.
    around = functional.pad(sequence, (0, 0, 1, 1))
    return around[:, :-2], sequence, around[:, 2:]


class _Unfold(nn.Module):
    def __init__(self, kernel: Tensor, parts: list[Part]) -> None:
        super().__init__()
        self.matrix: Tensor
        self.register_buffer("matrix", _matrix(kernel, parts))
        self._parts = parts

    def forward(self, sequence: Tensor, left: Tensor, right: Tensor) -> Tensor:
        around = taps(sequence)
        columns = []
        for tap, start, stop, neighbour in self._parts:
            part = around[tap][:, :, start:stop]
            if neighbour != CENTRE:
                part = part * (left if neighbour < CENTRE else right)
            columns.append(part)
        return torch.cat(columns, dim=2) @ self.matrix


class _Products(nn.Module):
    def __init__(self, kernel: Tensor, by_neighbour: list[list[Part]]) -> None:
        super().__init__()
        self._by_neighbour = by_neighbour
        for neighbour, parts in enumerate(by_neighbour):
            self.register_buffer(f"matrix_{neighbour}", _matrix(kernel, parts))

    def forward(self, sequence: Tensor, left: Tensor, right: Tensor) -> Tensor:
        products = [
            columns @ self.get_buffer(f"matrix_{neighbour}")
            for neighbour, columns in enumerate(_columns(sequence, self._by_neighbour))
        ]
        return left * products[0] + products[1] + right * products[2]


class _Grouped(nn.Module):
    def __init__(self, kernel: Tensor, by_neighbour: list[list[Part]]) -> None:
        super().__init__()
        self._by_neighbour = by_neighbour
        self._width = kernel.shape[0]
        self.kernel: Tensor
        matrices = [_matrix(kernel, parts).T for parts in by_neighbour]
        self.register_buffer("kernel", torch.cat(matrices)[:, :, None].contiguous())

    def forward(self, sequence: Tensor, left: Tensor, right: Tensor) -> Tensor:
        rows = torch.cat(_columns(sequence, self._by_neighbour), dim=2).transpose(1, 2)
        products = functional.conv1d(rows, self.kernel, groups=TAPS).transpose(1, 2)
        before, after = self._width, 2 * self._width
        centre = products[:, :, before:after]
        return left * products[:, :, :before] + centre + right * products[:, :, after:]


def _columns(sequence: Tensor, by_neighbour: list[list[Part]]) -> list[Tensor]:
    """For each affinity the rows of the unfolded input that it weighs, all of D channels."""
    around = taps(sequence)
    return [
        torch.cat([around[tap][:, :, start:stop] for tap, start, stop, _ in parts], dim=2)
        if len(parts) > 1
        else around[parts[0][0]][:, :, parts[0][1] : parts[0][2]]
        for parts in by_neighbour
    ]


def _matrix(kernel: Tensor, parts: list[Part]) -> Tensor:
    """The kernel's columns for `parts`, in their order: [rows, out]."""
    rows = [kernel[:, start:stop, tap].T for tap, start, stop, _ in parts]
    return torch.cat(rows).detach().contiguous()
