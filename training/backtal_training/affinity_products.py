"""The affinity convolution as matrix products, forward and backward.

``y[t] = sum over pieces of a_block[t] * W_piece @ x[t + tap - 1]``. Written out by hand because
torch would keep, for the backward pass, what is cheap to compute again or is never needed:

- A convolution whose input needs a gradient weights its unfolded input, and does so again in the
  backward pass, a few videos at a time: nothing of three times the input's size is kept, or ever
  whole. One product each for the output, for the weights' gradient and for the input's, from which
  the affinities' follows.
- The first layer's two branches see ``x`` and ``w * x``. A position's factor passes through the
  product, so ``W_piece @ x`` is computed once and weighted twice; and since ``x`` is data, the
  gradients of ``w`` and of the affinity are sums over channels: two products, where two branches
  of their own would take six.

Under autocast the products and what is kept are in its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

TAPS = 3
# Of an unfolded input that exist at once: 32 MiB in float32.
_PART_ELEMENTS = 2**23


@dataclass(frozen=True)
class Piece:
    """The part of a kernel at one tap (0 to 2) and channels first to last - 1.

    All of it is weighted by affinity `block` (0: to the left neighbour, 1, 2).
    """

    tap: int
    block: int
    first: int
    last: int

    @property
    def channels(self) -> slice:
        """Of the input."""
        return slice(self.first, self.last)

    def columns(self, num_channels: int) -> slice:
        """Of the kernel as a matrix [out, 3 * D], tap by tap."""
        return slice(self.tap * num_channels + self.first, self.tap * num_channels + self.last)

    def spans(self, length: int) -> tuple[slice, slice]:
        """Output positions t, and the input positions t + tap - 1 that exist for them."""
        offset = self.tap - 1
        targets = slice(max(0, -offset), length - max(0, offset))
        return targets, slice(targets.start + offset, targets.stop + offset)


def weighted(rows: Tensor, affinity: Tensor, weight: Tensor, pieces: tuple[Piece, ...]) -> Tensor:
    """rows [B, T, D], affinity [B, 3, T], weight [out, D, 3] -> [B, T, out]."""
    answer: Tensor = _Weighted.apply(rows, affinity, weight, pieces)  # type: ignore[no-untyped-call]
    return answer


def unfiltered_and_filtered(
    rows: Tensor,
    affinity: Tensor,
    foreground: Tensor,
    weight: Tensor,
    pieces: tuple[Piece, ...],
) -> Tensor:
    """`weighted` of `rows` and of ``foreground [B, T] * rows``: [2B, T, out].

    Rows get no gradient here.
    """
    answer: Tensor = _UnfilteredAndFiltered.apply(  # type: ignore[no-untyped-call]
        rows, affinity, foreground, weight, pieces
    )
    return answer


class _Weighted(Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, affinity: Tensor, weight: Tensor, pieces: tuple[Piece, ...]
    ) -> Tensor:
        kind = _product_type(rows)
        ctx.types = rows.dtype, affinity.dtype, weight.dtype
        ctx.pieces = pieces
        rows, affinity, matrix = rows.to(kind), affinity.to(kind), _matrix(weight).to(kind)
        ctx.save_for_backward(rows, affinity, matrix)
        answer = rows.new_empty(*rows.shape[:2], len(matrix))
        for videos, unfolded in _parts(rows):
            _unfold(rows[videos], affinity[videos], pieces, out=unfolded)
            torch.mm(unfolded.flatten(0, 1), matrix.T, out=answer[videos].flatten(0, 1))
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, affinity, matrix = ctx.saved_tensors
        gradient = gradients[0].to(rows.dtype).contiguous()
        of_rows = torch.zeros_like(rows)
        of_affinity = torch.zeros_like(affinity, dtype=ctx.types[1])
        of_matrix = torch.zeros_like(matrix, dtype=ctx.types[2])
        for videos, unfolded in _parts(rows):
            _unfold(rows[videos], affinity[videos], ctx.pieces, out=unfolded)
            arriving = gradient[videos].flatten(0, 1)
            _add_product(of_matrix, arriving.T, unfolded.flatten(0, 1))
            # What was unfolded is done with: its memory takes its gradient.
            torch.mm(arriving, matrix, out=unfolded.flatten(0, 1))
            for piece in ctx.pieces:
                targets, sources = piece.spans(rows.shape[1])
                part = unfolded[:, targets, piece.columns(rows.shape[2])]
                factor = affinity[videos, piece.block, targets, None]
                of_rows[videos, sources, piece.channels].addcmul_(part, factor)
                around = rows[videos, sources, piece.channels]
                of_affinity[videos, piece.block, targets] += _inner(part, around, ctx.types[1])
        of_weight = _as_weight(of_matrix, rows.shape[2])
        return of_rows.to(ctx.types[0]), of_affinity, of_weight, None


class _UnfilteredAndFiltered(Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        affinity: Tensor,
        foreground: Tensor,
        weight: Tensor,
        pieces: tuple[Piece, ...],
    ) -> Tensor:
        kind = _product_type(rows)
        ctx.types = affinity.dtype, foreground.dtype, weight.dtype
        ctx.pieces = pieces
        rows, affinity, matrix = rows.to(kind), affinity.to(kind), _matrix(weight).to(kind)
        foreground = foreground.to(kind)[..., None]
        batch, length, num_channels = rows.shape
        answer = rows.new_zeros(2 * batch, length, len(matrix))
        unfiltered, filtered = answer[:batch], answer[batch:]
        products = []
        for piece in pieces:
            product = rows[..., piece.channels] @ matrix[:, piece.columns(num_channels)].T
            targets, sources = piece.spans(length)
            factor = affinity[:, piece.block, targets, None]
            unfiltered[:, targets].addcmul_(product[:, sources], factor)
            filtered[:, targets].addcmul_(product[:, sources], factor * foreground[:, sources])
            products.append(product)
        ctx.save_for_backward(rows, affinity, foreground, *products)
        return answer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, affinity, foreground, *products = ctx.saved_tensors
        unfiltered, filtered = gradients[0].to(rows.dtype).chunk(2)
        num_channels = rows.shape[2]
        of_matrix = rows.new_empty(gradients[0].shape[2], TAPS * num_channels)
        of_affinity = torch.zeros_like(affinity, dtype=ctx.types[0])
        of_foreground = torch.zeros_like(foreground[..., 0], dtype=ctx.types[1])
        for piece, product in zip(ctx.pieces, products, strict=True):
            targets, sources = piece.spans(rows.shape[1])
            factor = affinity[:, piece.block, targets, None]
            around, weights = product[:, sources], foreground[:, sources]
            through = _inner(filtered[:, targets], around, ctx.types[0])
            of_foreground[:, sources] += through * factor[..., 0]
            of_affinity[:, piece.block, targets] += through * weights[..., 0]
            of_affinity[:, piece.block, targets] += _inner(
                unfiltered[:, targets], around, ctx.types[0]
            )
            of_product = torch.empty_like(product)
            if piece.tap != 1:
                of_product[:, -1 if piece.tap == 0 else 0] = 0
            torch.mul(unfiltered[:, targets], factor, out=of_product[:, sources])
            of_product[:, sources].addcmul_(filtered[:, targets], factor * weights)
            torch.mm(
                of_product.flatten(0, 1).T,
                rows[..., piece.channels].flatten(0, 1),
                out=of_matrix[:, piece.columns(num_channels)],
            )
        of_weight = _as_weight(of_matrix, num_channels).to(ctx.types[2])
        return None, of_affinity, of_foreground, of_weight, None


def _product_type(rows: Tensor) -> torch.dtype:
    kind = rows.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return rows.dtype


def _matrix(weight: Tensor) -> Tensor:
    """[out, D, 3] -> [out, 3 * D]: a view of a weight that lies as `AffinityConvolution` has it."""
    return weight.transpose(1, 2).flatten(1)


def _as_weight(matrix: Tensor, num_channels: int) -> Tensor:
    return matrix.view(len(matrix), TAPS, num_channels).transpose(1, 2)


def _parts(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """A few videos of the batch at a time, and the same memory [videos, T, 3 * D] for each."""
    batch, length, num_channels = rows.shape
    num_videos = min(batch, max(1, _PART_ELEMENTS // (length * TAPS * num_channels)))
    unfolded = rows.new_empty(num_videos, length, TAPS * num_channels)
    for first in range(0, batch, num_videos):
        last = min(batch, first + num_videos)
        yield slice(first, last), unfolded[: last - first]


def _unfold(rows: Tensor, affinity: Tensor, pieces: tuple[Piece, ...], *, out: Tensor) -> None:
    """[B, T, 3 * D]: each position's neighbours, weighted."""
    length, num_channels = rows.shape[1:]
    # Beyond the ends: the left neighbour of the first position, the right one of the last.
    out[:, 0, :num_channels] = 0
    out[:, -1, -num_channels:] = 0
    for piece in pieces:
        targets, sources = piece.spans(length)
        torch.mul(
            rows[:, sources, piece.channels],
            affinity[:, piece.block, targets, None],
            out=out[:, targets, piece.columns(num_channels)],
        )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; under autocast the total stays in the weights' type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _inner(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of products over channels."""
    return (left * right).sum(dim=-1, dtype=dtype)
