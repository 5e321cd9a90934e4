"""LoRA (arXiv 2106.09685): layers whose weights stay as they are and learn a product of two narrow
matrices that is added to them.

An adapter is a parametrisation of the weight, so it works wherever the weight is read (BEiT reads
that of its queries, keys and values without calling the layer), and merging is exact. peft, the
usual library, replaces the layer's call instead.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from train.config import LoraConfig
from x2vlm.errors import ConfigError

FROZEN = ("vision.", "text_encoder.", "fusion_encoder.", "answer_decoder.")
"""Parts whose own weights stay as they are; heads, projections and what is new learn in full."""


class Adapter(nn.Module):
    """W to W + `alpha / rank` B A, for W of (M, N); B is zero at first, so that nothing changes."""

    def __init__(self, weight: Tensor, config: LoraConfig):
        super().__init__()
        rows, columns = weight.shape
        self.scale = config.alpha / config.rank
        self.a = nn.Parameter(weight.new_empty(config.rank, columns).normal_(std=columns**-0.5))
        self.b = nn.Parameter(weight.new_zeros(rows, config.rank))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.addmm(weight, self.b, self.a, alpha=self.scale)


def add_adapters(model: nn.Module, config: LoraConfig, new_parameters: Collection[str]) -> int:
    """Freezes `FROZEN` except `new_parameters` and gives the linear layers in it adapters; how many
    they are.

    Raises:
        ConfigError: no linear layer has a name with one of `config.linears` (`config/value`).
    """
    for name, parameter in model.named_parameters():
        if name.startswith(FROZEN) and name not in new_parameters:
            parameter.requires_grad_(False)
    chosen = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not module.weight.requires_grad
        and any(word in f".{name}." for word in config.linears)
    ]
    if not chosen:
        raise ConfigError(
            f"model.lora.linears: no linear layer of the model has one of {config.linears} in its "
            "name.",
            "config/value",
        )
    for module in chosen:
        parametrize.register_parametrization(module, "weight", Adapter(module.weight, config))
    return len(chosen)


def merged(model: nn.Module) -> nn.Module:
    """The model with its adapters added to the weights, an ordinary model again: a copy, or the
    model itself where it has no adapters."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    # Not by `remove_parametrizations`: it changes the class, which copies share.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if parametrize.is_parametrized(child, "weight"):
                plain = nn.Linear(child.in_features, child.out_features, device="meta")
                plain.weight, plain.bias = nn.Parameter(child.weight.detach()), child.bias
                setattr(parent, name, plain)
    return model
