"""Linear layers whose weights take one byte each, for denoisers that do not fit otherwise."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

__all__ = ["Int8Linear", "in_eight_bits"]

_LARGEST = 127


def in_eight_bits(network: nn.Module) -> None:
    """Put an ``Int8Linear`` in the place of every linear layer of ``network``."""
    for module in [*network.modules()]:
        for name, layer in [*module.named_children()]:
            if type(layer) is nn.Linear:
                setattr(module, name, Int8Linear(layer))


class Int8Linear(nn.Module):
    """The linear layer ``layer`` with weights in 8 bits: whole numbers in [-127,127], and for each
    output the width of a step, the largest weight / 127 (Dettmers et al., "LLM.int8()", NeurIPS
    2022, sections 2.1 and 3.1, for weights alone).

    A weight moves by at most half a step. The weights are constants; activations keep their
    precision and have a gradient, that of the linear layer with the moved weights.
    """

    whole: Int8[Tensor, "outputs inputs"]
    step: Float[Tensor, "outputs"]

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        step = weight.abs().amax(1) / _LARGEST
        # Where all weights are 0, any step will do.
        step = torch.where(step > 0, step, torch.ones_like(step))
        self.register_buffer("whole", (weight / step[:, None]).round().to(torch.int8))
        self.register_buffer("step", step)
        self.bias = layer.bias

    def forward(self, states: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        outputs: Tensor = _Product.apply(states, self.whole, self.step)  # type: ignore[assignment]
        return outputs if self.bias is None else outputs + self.bias


class _Product(torch.autograd.Function):
    """States times weights of 8 bits. What is kept for backward are these, and no copy of them in
    the precision of the states, which would take more memory than the weights save."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, whole: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(whole, step)
        return (states @ whole.to(states.dtype).T * step).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole, step = ctx.saved_tensors
        (gradient,) = gradients
        return (gradient * step).to(gradient.dtype) @ whole.to(gradient.dtype), None, None
