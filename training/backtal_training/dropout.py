"""Dropout in half of torch's time on a CPU: four draws of 16 bits from each of 64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes a part `probability` of its input while training, and scales up the rest.

    On a CPU the probability is rounded to a multiple of 2^-16, and the scale with it.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        if not self.training or self.probability == 0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.probability)
        dropped = round(self.probability * _LEVELS)
        drawn = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = drawn.view(torch.int16)[: values.numel()].view(values.shape)
        kept = values.masked_fill(levels < dropped - _LEVELS // 2, 0.0)
        return kept * (_LEVELS / (_LEVELS - dropped))
