"""The parameters of a model as places for the tensors of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from x2vlm.checkpoint.content import shown
from x2vlm.checkpoint.resize import (
    resize_absolute_positions,
    resize_frame_positions,
    resize_relative_table,
)
from x2vlm.config import VisionConfig
from x2vlm.errors import CheckpointError


@dataclass(frozen=True)
class Slot:
    """One parameter with every name and place that it has: tied weights have two."""

    name: str
    names: frozenset[str]
    places: tuple[tuple[nn.Module, str], ...]
    parameter: nn.Parameter

    def fill(self, tensor: Tensor) -> None:
        if tensor.shape != self.parameter.shape:
            if self.name != "frame_positions":
                return  # sine positions for another size: what the model computed stands
            tensor = resize_frame_positions(tensor, self.parameter.detach())
        parameter = nn.Parameter(tensor, requires_grad=self.parameter.requires_grad)
        for module, attribute in self.places:
            setattr(module, attribute, parameter)


def parameter_slots(model: nn.Module) -> list[Slot]:
    """All parameters of a module, tied ones once."""
    found: dict[nn.Parameter, list[tuple[str, nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            found.setdefault(parameter, []).append(
                (f"{prefix}.{attribute}".lstrip("."), module, attribute)
            )
    return [
        Slot(
            uses[0][0],
            frozenset(name for name, _, _ in uses),
            tuple(use[1:] for use in uses),
            parameter,
        )
        for parameter, uses in found.items()
    ]


def first_tensor(slot: Slot, state: Mapping[str, Tensor]) -> Tensor:
    """The tensor of a parameter under the first of its names that is there."""
    return next(state[name] for name in sorted(slot.names) if name in state)


def fit_tensor(
    slot: Slot,
    state: Mapping[str, Tensor],
    file: str,
    vision: tuple[VisionConfig | None, VisionConfig],
    keys: Mapping[str, str] | None = None,
) -> Tensor:
    """The tensor for a parameter: checked, and resized where a rule says how.

    Args:
        vision: the image tower that the file was trained with, None where it is not known, and the
            model's.
        keys: our name -> key of the file, for messages.

    Raises:
        CheckpointError: see `load`.
    """
    tensor, shape, name = first_tensor(slot, state), slot.parameter.shape, slot.name
    found = sorted(slot.names & state.keys())
    key = shown((keys or {}).get(found[0], found[0]))
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{shown(file)}: {key} holds whole numbers where weights belong.", "ckpt/content"
        )
    if tensor.numel() and not all(bound.isfinite() for bound in tensor.aminmax()):
        raise CheckpointError(
            f"{shown(file)}: {key} holds values that are not finite; the training it comes from "
            f"had failed.",
            "ckpt/values",
        )
    if any(not torch.equal(state[other], tensor) for other in found[1:]):
        raise CheckpointError(
            f"{shown(file)}: {key} and its tied copy differ. The model shares them, so one would "
            f"be lost.",
            "ckpt/keys",
        )
    table, positions = (
        name.endswith("relative_position_bias_table"),
        name.endswith(("frame_positions", "pos_embed")),
    )
    # The dimension that follows the size of the image or the length of the video.
    free = 0 if table else 1 if positions else None
    sizes = list(zip(tensor.shape, shape))
    if tensor.ndim != len(shape) or any(
        old != new for dim, (old, new) in enumerate(sizes) if dim != free
    ):
        raise CheckpointError(
            f"{shown(file)}: {key} is {_sizes(tensor.shape)} in the file and {_sizes(shape)} in "
            "the model. Load it with the sizes it was trained with.",
            "ckpt/shape",
        )
    if table:
        source = _window(tensor.shape[0], vision[0], name)
        return resize_relative_table(tensor, source, window_of(vision[1], name))
    if name.endswith("pos_embed") and slot.parameter.requires_grad:
        source = _grid(tensor.shape[1] - 1, vision[0])
        if source != vision[1].grid_size:
            return resize_absolute_positions(tensor, source, vision[1].grid_size)
    return tensor


def window_of(vision: VisionConfig, name: str) -> tuple[int, int]:
    """(height, width) of the window whose relative positions a table of the tower holds."""
    if vision.tower != "swin":
        return vision.grid_size
    side = vision.swin_stages[int(name.split(".layers.")[1].split(".")[0])][1]
    return side, side


def _window(rows: int, vision: VisionConfig | None, name: str) -> tuple[int, int]:
    """The window of a table in a file: what the file's tower has, or else the square one."""
    if vision is not None:
        height, width = window_of(vision, name)
        if rows - (2 * height - 1) * (2 * width - 1) in (0, 3):
            return height, width
    side = (math.isqrt(rows) + 1) // 2
    return side, side


def _grid(patches: int, vision: VisionConfig | None) -> tuple[int, int]:
    """(rows, columns) of the patches that a file has positions for; a square where it is not
    known."""
    if vision is not None and math.prod(vision.grid_size) == patches:
        return vision.grid_size
    return math.isqrt(patches), math.isqrt(patches)


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
