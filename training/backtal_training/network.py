"""The BackTAL network: METHOD, Network. Parameter names are those of the released checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from backtal.errors import InvalidArgument
from backtal.settings import Settings
from backtal_training.affinity import AffinityConvolution, affinity

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

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.leaky_relu(self.conv_1(features), LEAKY_SLOPE)
        return torch.sigmoid(self.conv_2(hidden))


class _Embedding(nn.Module):
    """Unit vectors whose cosines are the affinity."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        hidden = settings.embedding_hidden_dim
        self.conv_1 = nn.Conv1d(settings.feature_dim, hidden, 3, padding=1)
        self.conv_2 = nn.Conv1d(hidden, settings.embedding_dim, 3, padding=1)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        hidden = _masked(functional.leaky_relu(self.conv_1(features), LEAKY_SLOPE), mask)
        return _masked(functional.normalize(self.conv_2(hidden), dim=1), mask)


class _Base(nn.Module):
    """Two affinity convolutions: the features that are classified."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        layout = settings.layout
        self.conv_1 = AffinityConvolution(settings.feature_dim, settings.hidden_dim, layout)
        self.conv_2 = AffinityConvolution(settings.hidden_dim, settings.hidden_dim, layout)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, features: Tensor, affinities: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The first layer's and the second's output, both [B, hidden, T]."""
        first = functional.leaky_relu(self.conv_1(features, affinities), LEAKY_SLOPE)
        # The released layout writes beyond the end: its middle block ignores the affinity.
        first = _masked(first, mask)
        second = functional.leaky_relu(self.conv_2(first, affinities), LEAKY_SLOPE)
        return first, self.dropout(_masked(second, mask))


class _Classifier(nn.Module):
    """Hidden features to the C+1 classes of the CAS; background is the last."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.conv = nn.Conv1d(settings.hidden_dim, settings.num_classes + 1, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)  # type: ignore[no-any-return]


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
        features = _masked(features, mask)
        embedding = self.embedding_module(features, mask)
        affinities = affinity(embedding)
        foreground = _masked(self.filter_module(features), mask)
        _, base = self.base_module(features, affinities, mask)
        _, suppressed = self.base_module(foreground * features, affinities, mask)
        if mask is None:
            mask = features.new_ones((features.shape[0], features.shape[-1]), dtype=torch.bool)
        return NetworkOutput(
            base=Branch(self.classifier_module(base)),
            suppressed=Branch(self.classifier_module(suppressed)),
            embedding=embedding,
            foreground=foreground,
            mask=mask,
        )

    def infer(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The suppressed branch only: raw cas [B, C+1, T] and feature magnitude [B, T].

        The magnitude is the L2 norm over channels of the first affinity convolution's activated
        output. What is exported and served is this, traced in evaluation mode.
        """
        affinities = affinity(self.embedding_module(features, None))
        filtered = self.filter_module(features) * features
        first, second = self.base_module(filtered, affinities, None)
        return self.classifier_module(second), torch.linalg.vector_norm(first, dim=1)

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


def _masked(sequence: Tensor, mask: Tensor | None) -> Tensor:
    """Zero at padding. Not a product: padding may hold anything, even NaN."""
    return sequence if mask is None else sequence.masked_fill(~mask[:, None], 0.0)
