"""Batch norms with fixed statistics as a scale and a shift of each channel."""

from __future__ import annotations

from torch import Tensor, nn


def folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """float[C] scale and float[C] shift that do what `norm` does in evaluation mode."""
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias.detach() - norm.running_mean * scale


def folded_state(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module under their names, with its batch norms folded."""
    state = {name: parameter.detach() for name, parameter in module.named_parameters()}
    for name, child in module.named_modules():
        if isinstance(child, nn.BatchNorm2d):
            state[f"{name}.weight"], state[f"{name}.bias"] = folded(child)
    return state
