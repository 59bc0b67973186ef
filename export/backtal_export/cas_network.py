"""The CAS network of a checkpoint as an ONNX file: the suppressed branch only, any length.

What `BackTALNetwork.infer` computes, laid out for the runtime (METHOD, Network, and item 1 of
what the released code does). Positions come before channels, so that every layer is one product
of all positions with one constant matrix; a convolution of width 3 is an unfold (pad, slice,
concatenate) and that product. The affinity convolution has three forms (`affinity_forms`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal_export.affinity_forms import Form, affinity_convolution, taps
from backtal_export.traced import traced_onnx
from backtal_training.network import LEAKY_SLOPE, BackTALNetwork

# That of torch.nn.functional.normalize.
_NORMALIZE_EPSILON = 1e-12


class CasNetwork(nn.Module):
    """features [B, D, L] -> raw cas [B, C+1, L] and feature magnitude [B, L]."""

    def __init__(self, network: BackTALNetwork, form: Form = "unfold") -> None:
        super().__init__()
        released = network.settings.layout == "released"
        embedding, base = network.embedding_module, network.base_module
        self.filter_1 = _Product.of_kernel(*_parameters(network.filter_module.conv_1[0]))
        self.filter_2 = _Product.of_kernel(*_parameters(network.filter_module.conv_2[0]))
        self.embedding_1 = _Product.of_kernel(*_parameters(embedding.conv_1))
        self.embedding_2 = _Product.of_kernel(*_parameters(embedding.conv_2))
        self.base_1 = affinity_convolution(base.conv_1.weight, released=released, form=form)
        self.base_2 = affinity_convolution(base.conv_2.weight, released=released, form=form)
        self.classifier = _Product.of_kernel(network.classifier_module.conv.weight)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class. L is at least 1."""
        positions = features.transpose(1, 2)
        left, right = _affinities(self._embedding(positions))
        weight = torch.sigmoid(self.filter_2(_activated(self.filter_1(positions))))
        first = _activated(self.base_1(weight * positions, left, right))
        second = _activated(self.base_2(first, left, right))
        magnitude = torch.sqrt((first * first).sum(dim=2))
        return self.classifier(second).transpose(1, 2), magnitude

    def _embedding(self, positions: Tensor) -> Tensor:
        hidden = _activated(self.embedding_1(_unfolded(positions)))
        embedding = self.embedding_2(_unfolded(hidden))
        length = torch.sqrt((embedding * embedding).sum(dim=2, keepdim=True))
        unit: Tensor = embedding / length.clamp_min(_NORMALIZE_EPSILON)
        return unit


def cas_onnx(network: BackTALNetwork, form: Form = "unfold") -> bytes:
    """The model file: `features` [B, D, L] in; `cas` [B, C+1, L] and `magnitude` [B, L] out.

    B and L are free. The same weights give the same bytes under one version of torch.
    """
    settings = network.settings
    return traced_onnx(
        CasNetwork(network.eval(), form).eval(),
        torch.zeros(2, settings.feature_dim, 6),
        inputs={"features": {0: "B", 2: "L"}},
        outputs={"cas": {0: "B", 2: "L"}, "magnitude": {0: "B", 1: "L"}},
        metadata={
            "what": "BackTAL's CAS network, the suppressed branch",
            "layout": settings.layout,
            "affinity_convolution": form,
            "halo_positions": "4",
        },
    )


class _Product(nn.Module):
    """[B, L, in] @ [in, out], and a bias where there is one."""

    def __init__(self, matrix: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix: Tensor
        self.bias: Tensor | None
        self.register_buffer("matrix", matrix.detach().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @classmethod
    def of_kernel(cls, kernel: Tensor, bias: Tensor | None = None) -> _Product:
        """The product that a convolution [out, in, taps] is, after `_unfolded` where taps > 1."""
        return cls(kernel.permute(2, 1, 0).flatten(0, 1), bias)

    def forward(self, rows: Tensor) -> Tensor:
        product = rows @ self.matrix
        return product if self.bias is None else product + self.bias


def _unfolded(sequence: Tensor) -> Tensor:
    """[B, L, D] -> [B, L, 3 D], tap by tap."""
    return torch.cat(taps(sequence), dim=2)


def _affinities(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of each position with its left and right neighbour, both [B, L, 1]."""
    # Padded first: between the positions of a sequence of one there is nothing to multiply.
    around = functional.pad(embedding, (0, 0, 1, 1))
    products = (around[:, :-1] * around[:, 1:]).sum(dim=2, keepdim=True)
    return products[:, :-1], products[:, 1:]


def _activated(value: Tensor) -> Tensor:
    return functional.leaky_relu(value, LEAKY_SLOPE)


def _parameters(convolution: nn.Module) -> tuple[Tensor, Tensor | None]:
    return convolution.weight, convolution.bias  # type: ignore[return-value]
