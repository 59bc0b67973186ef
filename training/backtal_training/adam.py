"""Adam with L2 weight decay, as torch.optim.Adam has it with its defaults.

Ours, because the first torch.optim optimizer of a process imports torch's compiler: ten seconds
and more of every short run, of every worker process, for arithmetic of ten lines.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_BETA_MEAN = 0.9
_BETA_SQUARE = 0.999
_EPSILON = 1e-8


class Adam:
    """Steps `parameters` by their gradients; a parameter without a gradient stays."""

    def __init__(
        self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float = 0.0
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(one) for one in self._parameters]
        self._squares = [torch.zeros_like(one) for one in self._parameters]
        self._num_steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of all parameters."""
        self._num_steps += 1
        mean_scale = 1 - _BETA_MEAN**self._num_steps
        square_scale = 1 - _BETA_SQUARE**self._num_steps
        for parameter, mean, square in zip(
            self._parameters, self._means, self._squares, strict=True
        ):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.add(parameter, alpha=self._weight_decay)
            mean.lerp_(gradient, 1 - _BETA_MEAN)
            square.mul_(_BETA_SQUARE).addcmul_(gradient, gradient, value=1 - _BETA_SQUARE)
            spread = (square / square_scale).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(mean, spread, value=-self._learning_rate / mean_scale)
