"""The keys of a file, whatever program wrote it, to the names of our parameters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from x2vlm.checkpoint.content import Weights, shown
from x2vlm.checkpoint.keys import ignored_reason, official_name, our_name
from x2vlm.checkpoint.layout import Layout, canonical, layout_of, official_spelling
from x2vlm.errors import CheckpointError

_KNOWN_PREFIXES = {"module", "model", "_orig_mod"}
"""Of DistributedDataParallel, Lightning and torch.compile."""
_INNER_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module)\.")
"""torch.compile and FSDP wrap single modules too."""


@dataclass(frozen=True)
class Translated:
    """A file's tensors under our names, and what became of its keys.

    Attributes:
        renamed: key of the file -> our name, where they differ.
        ours: the file follows our names, not the official ones.
        image_size: (height, width) in pixels that the constants of the image tower tell.
        prefix: what stood before every name.
    """

    state: dict[str, Tensor]
    renamed: dict[str, str]
    ignored: dict[str, str]
    unexpected: tuple[str, ...]
    ours: bool
    layout: Layout
    image_size: tuple[int, int] | None
    notes: tuple[str, ...]
    prefix: str

    def key_of(self, name: str) -> str:
        """How the file spells, or would spell, one of our names."""
        official = None if self.ours else official_name(name)
        if official is None:
            return self.prefix + name
        return self.prefix + official_spelling(official, self.layout)


def translate(weights: Weights, file: str) -> Translated:
    """Names every tensor of a file.

    Raises:
        CheckpointError: layers that are left out, or tied copies that differ (`ckpt/keys`).
    """
    prefix = common_prefix(weights.tensors)
    original = _without_wrappers(weights.tensors, prefix)
    tensors = {name: weights.tensors[key] for name, key in original.items()}
    told = [f"prefix {shown(prefix)} removed from the names"] if prefix else []
    notes = (*weights.notes, *told)
    if any(name.startswith("vision.tower.") for name in tensors):
        xlm_r = len(tensors.get("text_encoder.embeddings.token_types.weight", (0, 0))) == 1
        renamed = {key: name for name, key in original.items() if key != name}
        layout = Layout(0, separate_fusion=xlm_r)
        return Translated(tensors, renamed, {}, (), True, layout, None, notes, prefix)
    layout = layout_of(tensors)
    # X-VLM's text assignment, a stage before NLVR2, has a `vision_proj` of another kind.
    assigns_texts = any(name.startswith("ta_head.") for name in tensors)
    state, renamed, ignored, unexpected = {}, {}, {}, []
    for spelled, tensor in tensors.items():
        name, key = our_name(canonical(spelled, layout)), original[spelled]
        if reason := ignored_reason(spelled):
            ignored[key] = reason
        elif name is None or (assigns_texts and name.startswith("image_projection.")):
            unexpected.append(key)
        elif name not in state:
            state[name], renamed[key] = tensor, name
        elif torch.equal(state[name], tensor):
            ignored[key] = "second copy of a tied weight"
        else:
            raise CheckpointError(
                f"{shown(file)}: {shown(key)} and its tied copy differ. The file is not one that "
                f"the official code wrote.",
                "ckpt/keys",
            )
    if _shares_projection(state):
        for part in ("weight", "bias"):
            state[f"image_projection.{part}"] = state[f"text_projection.{part}"]
        notes = (*notes, "images use text_proj, as the file has no vision_proj")
    image_size = _told_size(tensors)
    if image_size is None and any(name.startswith("vision_encoder.layers.") for name in tensors):
        notes = (*notes, "the file does not tell its image size, which is taken to be square")
    return Translated(
        state,
        renamed,
        ignored,
        tuple(unexpected),
        ours=False,
        layout=layout,
        image_size=image_size,
        notes=notes,
        prefix=prefix,
    )


def common_prefix(keys: Iterable[str]) -> str:
    """What stands before the image tower's names: of several candidates those that training
    frameworks add are preferred, then the shortest."""
    found = set()
    for key in keys:
        if match := re.match(r"((?:[\w-]+\.)*?)(?:vision_encoder|vision\.(?:\w+\.)?tower)\.", key):
            found.add(match[1])
    return min(
        found,
        key=lambda prefix: (not set(prefix.split(".")[:-1]) <= _KNOWN_PREFIXES, len(prefix)),
        default="",
    )


def _without_wrappers(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Name without what frameworks add -> key of the file. A key of another prefix stays whole."""
    names: dict[str, str] = {}
    for key in keys:
        name = _INNER_WRAPPERS.sub("", key.removeprefix(prefix)) if key.startswith(prefix) else key
        names[key if name in names else name] = key
    return names


def _shares_projection(state: Mapping[str, Tensor]) -> bool:
    """Whether images and texts use one contrastive projection (CCLM's `use_one_cl_proj_only`)."""
    types = state.get("text_encoder.embeddings.token_types.weight", ())
    return (
        len(types) == 1
        and "text_projection.weight" in state
        and "image_projection.weight" not in state
    )


def _told_size(tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """(height, width) that an image tower was built for, from its constants; None where they are
    left out. The parameters alone cannot tell an image that is not square."""
    patch = tensors.get("vision_encoder.patch_embed.proj.weight")
    if patch is None or patch.ndim != 4:
        return None
    for name, tensor in tensors.items():
        stage = re.match(r"vision_encoder\.layers\.(\d)\.blocks\.\d+\.attn_mask$", name)
        if stage and tensor.ndim == 3:
            rows, columns = _window_grid(tensor)
            cell = math.isqrt(tensor.shape[1]) * patch.shape[2] * 2 ** int(stage[1])
            return rows * cell, columns * cell
    index = tensors.get("vision_encoder.blocks.0.attn.relative_position_index")
    table = tensors.get("vision_encoder.blocks.0.attn.relative_position_bias_table")
    if index is None or table is None or index.ndim != 2 or len(index) < 3:
        return None
    rows, columns = _patch_grid(index)
    if (2 * rows - 1) * (2 * columns - 1) + 3 != len(table):
        return None
    return rows * patch.shape[2], columns * patch.shape[2]


def _window_grid(mask: Tensor) -> tuple[int, int]:
    """(rows, columns) of shifted windows, from the mask float[windows, N, N] of a Swin block. In a
    row of windows only the last one is cut, until the last row."""
    cut = mask.flatten(1).any(dim=1).nonzero()
    columns = int(cut[0]) + 1 if len(cut) else 1
    if len(mask) % columns:
        columns = math.isqrt(len(mask))
    return len(mask) // columns, columns


def _patch_grid(index: Tensor) -> tuple[int, int]:
    """(rows, columns) of patches, from BEiT's index int64[1 + P, 1 + P] of relative positions: seen
    from the first patch it grows by one along a row, and by more to the next."""
    seen = index[1:, 1] - index[1, 1]
    jumps = (seen != torch.arange(len(seen))).nonzero()
    columns = int(jumps[0]) if len(jumps) else len(seen)
    return len(seen) // columns, columns
