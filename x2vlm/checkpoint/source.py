"""Which files of a folder hold its weights, and their tensors."""

from __future__ import annotations

import json
from pathlib import Path

from x2vlm.checkpoint.content import Weights, shown
from x2vlm.checkpoint.safe_load import read_weights
from x2vlm.errors import CheckpointError

WEIGHTS = "model.safetensors"
_INDEX = ".index.json"
_NAMED = (WEIGHTS, WEIGHTS + _INDEX, "pytorch_model.bin", "pytorch_model.bin" + _INDEX)
"""Names that transformers and this package give to weights, the first one that is there is taken;
an index lists the files that share the weights."""
_SUFFIXES = (".th", ".pt", ".pth", ".tar", ".safetensors", ".bin")


def weights_file(source: Path) -> Path:
    """The weights file itself, or the one in a folder; an index where several share the weights.

    Raises:
        CheckpointError: the folder holds none, or several of other names (`ckpt/source`).
    """
    if not source.is_dir():
        return source
    for name in _NAMED:
        if (source / name).is_file():
            return source / name
    found = [path for path in sorted(source.iterdir()) if path.suffix in _SUFFIXES]
    if len(found) != 1:
        listed = ", ".join(shown(path.name, 40) for path in found[:5]) or "none"
        raise CheckpointError(
            f"The folder {shown(source.name)} should hold {WEIGHTS}, pytorch_model.bin, the index "
            f"of one of them, or one other weights file; it holds: {listed}. Give the file itself.",
            "ckpt/source",
        )
    return found[0]


def files_of(weights: Path) -> list[Path]:
    """The weights file, or all files that an index lists.

    Raises:
        CheckpointError: the index is damaged (`ckpt/damaged`), or one of its files is not beside it
            (`ckpt/source`).
    """
    if not weights.name.endswith(_INDEX):
        return [weights]
    parts = [weights.parent / name for name in sorted(set(_weight_map(weights).values()))]
    for part in parts:
        if not part.is_file():
            raise CheckpointError(
                f"{shown(weights.name)} lists {shown(part.name)}, which is not beside it. Copy or "
                f"download that file too.",
                "ckpt/source",
            )
    return parts


def read_source(weights: Path) -> Weights:
    """All tensors of a weights file, or of the files that an index lists.

    Raises:
        CheckpointError: see `files_of` and `x2vlm.checkpoint.safe_load.read_weights`; a tensor that
            the index lists is in none of its files (`ckpt/keys`).
    """
    if not weights.name.endswith(_INDEX):
        return read_weights(weights)
    tensors, notes = {}, []
    for part in files_of(weights):
        read = read_weights(part)
        tensors |= read.tensors
        notes += read.notes
    if absent := sorted(_weight_map(weights).keys() - tensors.keys()):
        raise CheckpointError(
            f"{shown(weights.name)} lists {shown(absent[0])}, which none of its files holds. Copy "
            f"or download them again.",
            "ckpt/keys",
        )
    return Weights(tensors, tuple(dict.fromkeys(notes)))


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> name of the file that holds it; never a path that leads out of the folder."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if listed and all(name == Path(name).name for name in listed.values()):
            return listed
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise CheckpointError(
        f"{shown(index.name)} is no index of weights files. Copy or download it again.",
        "ckpt/damaged",
    )
