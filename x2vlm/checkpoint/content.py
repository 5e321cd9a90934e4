"""What a weights file held: the state dict inside its wrappers, checked to be plain tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from x2vlm.errors import CheckpointError

MAX_NAME_LENGTH = 200
MAX_WRAPPERS = 5
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.bool,
)
WRAPPERS = (
    "model",
    "module",
    "state_dict",
    "model_state_dict",
    "net",
    "ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
)
"""Keys under which the state dict may sit, the first one that is there is taken. X2-VLM, X-VLM and
CCLM write `model`, BEiT also `module`, Lightning `state_dict`; averaged weights come last."""


@dataclass(frozen=True)
class Weights:
    """Tensors as stored, on the CPU: buffers included, dtypes unchanged.

    Attributes:
        notes: sentences for the report, such as which of several state dicts was taken.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def shown(name: str, limit: int = 80) -> str:
    """A name from outside, fit for a message: printable and short."""
    return re.sub(r"[^\w.\-+ ]", "?", name)[:limit]


def unwrap(content: Any, name: str) -> Weights:
    """The state dict inside what the file held, with a note on the wrapper it lay in.

    Raises:
        CheckpointError: no table of plain tensors, or an optimiser's state (`ckpt/content`).
    """
    taken: list[str] = []
    others: list[str] = []
    for _ in range(MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        taken.append(inside[0])
        others += inside[1:]
        content = content[inside[0]]
    tensors = check_tensors(content, name)
    if taken in ([], ["model"]) and not others:
        return Weights(tensors)
    left = f", not {', '.join(others)}" if others else ""
    return Weights(tensors, (f"weights taken from {'.'.join(taken)}{left}",))


def check_tensors(content: Any, name: str) -> dict[str, Tensor]:
    """Every entry must be a plain dense tensor whose memory really exists (`ckpt/content`
    otherwise). Values come later."""
    name = shown(name)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{name} holds a {type(content).__name__}, not a table of named weights.",
            "ckpt/content",
        )
    if "optimizer" in content or "param_groups" in content:
        raise CheckpointError(
            f"{name} holds the state of a training run's optimiser, not weights. Give the "
            f"model_state file beside it.",
            "ckpt/content",
        )
    for key, value in content.items():
        if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME_LENGTH:
            raise CheckpointError(
                f"{name} holds an entry whose name is no parameter's name.", "ckpt/content"
            )
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} holds a {type(value).__name__} under {shown(key)}, where a tensor "
                f"belongs. State dicts are looked for under: {', '.join(WRAPPERS)}.",
                "ckpt/content",
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in DTYPES:
            raise CheckpointError(
                f"{name}: {shown(key)} has type {str(value.dtype)[6:]}; weights are fp16, bf16 or "
                f"fp32.",
                "ckpt/content",
            )
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise CheckpointError(
                f"{name}: {shown(key)} claims more numbers than the file holds.", "ckpt/content"
            )
    if not content:
        raise CheckpointError(f"{name} holds no weights at all.", "ckpt/content")
    return {key: value.detach() for key, value in content.items()}
