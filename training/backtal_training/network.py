"""The BackTAL network: METHOD, Network. Parameter names are those of the released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from backtal.errors import InvalidArgument
from backtal.settings import Settings
from backtal_training.affinity import AffinityConvolution, affinity
from backtal_training.dropout import Dropout

LEAKY_SLOPE = 0.01


class NetworkSettings(Settings):
    """The sizes of a network. The paper's are the defaults."""

    layout: Literal["paper", "released"] = "paper"
    feature_dim: int = Field(ge=1)
    num_classes: int = Field(ge=1, description="C, without background")
    hidden_dim: int = Field(default=2048, ge=1)
    embedding_hidden_dim: int = Field(default=512, ge=1)
    embedding_dim: int = Field(default=32, ge=1)
    filter_hidden_dim: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.7, ge=0, lt=1)


@dataclass(frozen=True)
class Branch:
    """One branch's answer: the class activation sequence, cas [B, C+1, T]."""

    cas: Tensor


@dataclass(frozen=True)
class NetworkOutput:
    """What the losses need.

    base and suppressed: Branch; embedding [B, E, T], unit vectors; foreground [B, 1, T] in (0, 1);
    mask [B, T], True at real positions. Everything is 0 at padding.
    """

    base: Branch
    suppressed: Branch
    embedding: Tensor
    foreground: Tensor
    mask: Tensor

    def float(self) -> NetworkOutput:
        """In float32 at least, as the losses want it."""
        base, suppressed, embedding, foreground = (
            one if one.dtype in (torch.float32, torch.float64) else one.float()
            for one in (self.base.cas, self.suppressed.cas, self.embedding, self.foreground)
        )
        return NetworkOutput(Branch(base), Branch(suppressed), embedding, foreground, self.mask)


class _Filter(nn.Module):
    """The foreground filter w: how much a position belongs to any action."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = settings.filter_hidden_dim
        # Sequential, for the released names: conv_1.0.weight.
        self.conv_1 = nn.Sequential(nn.Conv1d(settings.feature_dim, hidden, 1))
        self.conv_2 = nn.Sequential(nn.Conv1d(hidden, 1, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, 1]."""
        hidden = _activated(_convolved(rows, self.conv_1[0]))
        return torch.sigmoid(_convolved(hidden, self.conv_2[0]))


class _Embedding(nn.Module):
    """Unit vectors whose cosines are the affinity."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = settings.embedding_hidden_dim
        self.conv_1 = nn.Conv1d(settings.feature_dim, hidden, 3, padding=1)
        self.conv_2 = nn.Conv1d(hidden, settings.embedding_dim, 3, padding=1)

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, E]."""
        hidden = _activated(_convolved(rows, self.conv_1))
        embedding = _convolved(_masked(hidden, mask), self.conv_2)
        return _masked(functional.normalize(embedding, dim=2), mask)


class _Base(nn.Module):
    """Two affinity convolutions: the features that are classified."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        layout = settings.layout
        self.conv_1 = AffinityConvolution(settings.feature_dim, settings.hidden_dim, layout)
        self.conv_2 = AffinityConvolution(settings.hidden_dim, settings.hidden_dim, layout)
        self.dropout = Dropout(settings.dropout)

    def forward(
        self, rows: Tensor, affinities: Tensor, foreground: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The second layer's output [B, T, hidden] of the unfiltered rows and of the filtered."""
        first = self.conv_1.both(rows, affinities, foreground[..., 0])
        twice = None if mask is None else mask.repeat(2, 1)
        second = self._second(first, affinities.repeat(2, 1, 1), twice)[1]
        unfiltered, filtered = self.dropout(second).chunk(2)
        return unfiltered, filtered

    def infer(self, rows: Tensor, affinities: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's and the second's activated output, both [B, T, hidden]."""
        return self._second(self.conv_1(rows, affinities), affinities, None)

    def _second(
        self, first: Tensor, affinities: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # The released layout writes beyond the end: its middle block ignores the affinity.
        first = _masked(_activated(first), mask)
        second = _activated(self.conv_2(first, affinities))
        return first, _masked(second, mask)


class _Classifier(nn.Module):
    """Hidden features to the C+1 classes of the CAS; background is the last."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = nn.Conv1d(settings.hidden_dim, settings.num_classes + 1, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, C+1, T]."""
        return _convolved(hidden, self.conv).transpose(1, 2)


class BackTALNetwork(nn.Module):
    """Features [B, D, T] to class activation sequences [B, C+1, T], in two branches."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        self.filter_module = _Filter(settings)
        self.base_module = _Base(settings)
        self.classifier_module = _Classifier(settings)
        self.embedding_module = _Embedding(settings)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> NetworkOutput:
        """Both branches.

        features [B, D, T]; lengths [B] counts the real positions of each video where the batch is
        padded, whatever the padding holds: real positions answer as if each video were alone.
        Raises InvalidArgument where shapes do not fit.
        """
        self._check(features, lengths)
        mask = None if lengths is None else _mask(lengths, features.shape[-1])
        rows = _masked(features.transpose(1, 2).contiguous(), mask)
        embedding = self.embedding_module(rows, mask).transpose(1, 2)
        foreground = _masked(self.filter_module(rows), mask)
        unfiltered, filtered = self.base_module(rows, affinity(embedding), foreground, mask)
        if mask is None:
            mask = features.new_ones((features.shape[0], features.shape[-1]), dtype=torch.bool)
        return NetworkOutput(
            base=Branch(self.classifier_module(unfiltered)),
            suppressed=Branch(self.classifier_module(filtered)),
            embedding=embedding,
            foreground=foreground.transpose(1, 2),
            mask=mask,
        )

    def infer(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The suppressed branch only: raw cas [B, C+1, T] and feature magnitude [B, T].

        The magnitude is the L2 norm over channels of the first affinity convolution's activated
        output. What is exported and served computes the same, in evaluation mode.
        """
        rows = features.transpose(1, 2).contiguous()
        affinities = affinity(self.embedding_module(rows, None).transpose(1, 2))
        first, second = self.base_module.infer(self.filter_module(rows) * rows, affinities)
        return self.classifier_module(second), torch.linalg.vector_norm(first, dim=2)

    def _check(self, features: Tensor, lengths: Tensor | None) -> None:
        if features.ndim != 3 or features.shape[1] != self.settings.feature_dim:
            raise InvalidArgument(
                f"features have shape {list(features.shape)}, "
                f"this network takes [B, {self.settings.feature_dim}, T]"
            )
        if lengths is None:
            return
        batch, _, positions = features.shape
        if lengths.shape != (batch,):
            raise InvalidArgument(f"lengths have shape {list(lengths.shape)}, expected [{batch}]")
        # On a GPU looking would wait for it; a batch's lengths are right by its making.
        if lengths.device.type == "cpu" and (
            int(lengths.min()) < 1 or int(lengths.max()) > positions
        ):
            raise InvalidArgument(f"lengths {lengths.tolist()} are not within 1 and {positions}")


def _mask(lengths: Tensor, positions: int) -> Tensor:
    return torch.arange(positions, device=lengths.device) < lengths[:, None]


def _masked(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Zero at padding. Not a product: padding may hold anything, even NaN."""
    return rows if mask is None else rows.masked_fill(~mask[..., None], 0.0)


def _activated(rows: Tensor) -> Tensor:
    """Leaky ReLU in place: its gradient needs the answer's signs alone, and no layer its input."""
    return functional.leaky_relu_(rows, LEAKY_SLOPE)


def _convolved(rows: Tensor, convolution: nn.Module) -> Tensor:
    """The convolution, of width 1 or 3, of rows: [B, T, D] -> [B, T, out].

    One product for all taps, then shifts: with it nothing of three times the input's size is made.
    """
    weight, bias = cast(nn.Conv1d, convolution).weight, cast(nn.Conv1d, convolution).bias
    if weight.shape[2] == 1:
        return functional.linear(rows, weight[..., 0], bias)
    stacked = weight.permute(2, 0, 1).flatten(0, 1)
    left, centre, right = functional.linear(rows, stacked).chunk(3, dim=2)
    around = functional.pad(left[:, :-1], (0, 0, 1, 0)) + functional.pad(right[:, 1:], (0, 0, 0, 1))
    answer = centre + around
    return answer if bias is None else answer + bias
