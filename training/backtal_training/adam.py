"""Adam with L2 weight decay, as torch.optim.Adam has it with its defaults.

Ours, because the first torch.optim optimizer of a process imports torch's compiler: ten seconds
and more of every short run, of every worker process, for arithmetic of ten lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

_BETA_MEAN = 0.9
_BETA_SQUARE = 0.999
_EPSILON = 1e-8
# A piece of all four arrays stays in a core's cache from the first operation to the last.
_PIECE_ELEMENTS = 2**16


class Adam:
    """Steps `parameters` by their gradients; a parameter without a gradient stays.

    `learning_rate` may be set between steps. The moments are saved and restored by `moments` and
    `num_steps`: a run goes on with both as if it had not stopped.
    """

    def __init__(
        self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float = 0.0
    ) -> None:
        self.learning_rate = learning_rate
        self.num_steps = 0
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(one) for one in self._parameters]
        self._squares = [torch.zeros_like(one) for one in self._parameters]

    @property
    def moments(self) -> dict[str, Tensor]:
        """The running means and squares themselves, by name."""
        means = {f"mean.{number}": one for number, one in enumerate(self._means)}
        return means | {f"square.{number}": one for number, one in enumerate(self._squares)}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of all parameters."""
        self.num_steps += 1
        mean_scale = 1 - _BETA_MEAN**self.num_steps
        square_scale = 1 - _BETA_SQUARE**self.num_steps
        for parameter, mean, square, gradient in self._pieces():
            gradient = gradient.add(parameter, alpha=self._weight_decay)
            mean.lerp_(gradient, 1 - _BETA_MEAN)
            square.mul_(_BETA_SQUARE).addcmul_(gradient, gradient, value=1 - _BETA_SQUARE)
            spread = (square / square_scale).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(mean, spread, value=-self.learning_rate / mean_scale)

    def _pieces(self) -> Iterator[tuple[Tensor, ...]]:
        """Parameter, mean, square and gradient, piece by piece of their memory."""
        for parameter, mean, square in zip(
            self._parameters, self._means, self._squares, strict=True
        ):
            if parameter.grad is None:
                continue
            together = (parameter, mean, square, parameter.grad)
            if parameter.device.type != "cpu" or parameter.numel() <= _PIECE_ELEMENTS:
                yield together
                continue
            order = sorted(range(parameter.ndim), key=parameter.stride, reverse=True)
            # Views all, as they lie in memory; a gradient that lies otherwise is copied.
            flat = [one.permute(order).reshape(-1) for one in together]
            yield from zip(*(torch.split(one, _PIECE_ELEMENTS) for one in flat), strict=True)
