"""`python -m tests.parity DIR...`: one line a quantity, exit 1 if any does not agree or nobody
knows what it is.

Floats agree when they differ by at most 1e-4 of the recorded tensor's largest magnitude; integers
and texts exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.parity.case import Case
from tests.parity.quantities import INPUTS, compute
from tests.parity.texts import text_checks
from x2vlm.errors import CheckpointError
from x2vlm.modeling.layers import Attention
from x2vlm.modeling.x2vlm import X2VLM

TOLERANCE = 1e-4
_HEADS: dict[str, int] = {}
"""Attention heads by the hash of the checkpoint, where they had to be searched for."""
META_KEYS = {
    "kind", "architecture", "note", "checkpoint_image_size", "prompt", "prompt_ids",
    "label_smoothing", "runs", "questions",
    "answers", "layout", "train_captions",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One line: a quantity, how far ours is from the recorded one, and whether that is near
    enough."""

    name: str
    difference: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.name:32} {self.difference:>28}  {'PASS' if self.passed else 'FAIL'}"


def check_folder(folder: Path) -> Iterator[Result]:
    """Every recorded quantity of a folder; a folder that cannot be read or loaded is one failed
    line."""
    if not folder.is_dir():
        yield Result(
            "folder",
            "This is a file. Name the folder it lies in."
            if folder.exists()
            else "There is no such folder.",
            False,
        )
        return
    try:
        case = open_case(folder)
    except Exception as error:
        yield Result("checkpoint", f"{type(error).__name__}: {error}", False)
        return
    yield from _check(case)


@torch.no_grad()
def open_case(folder: Path) -> Case:
    """A folder with the number of attention heads that the recordings were made with.

    It leaves no trace in a file, so the loader takes 64 dimensions a head and refuses other widths.
    The number that comes nearest to the recordings is the right one.
    """
    try:
        return Case(folder)
    except CheckpointError as error:
        if "number of attention heads" not in error.message:
            raise
    case = Case(folder, heads=1)
    if case.hash not in _HEADS:
        distances, width = {}, case.model.config.text.hidden_size
        for heads in filter(lambda heads: width % heads == 0, range(1, width + 1)):
            _set_heads(case.model, heads)
            distances[heads] = sum(map(partial(_distance, case), case.recorded.keys() - INPUTS))
        _set_heads(case.model, 1)
        _HEADS[case.hash] = min(distances, key=distances.get)
    return Case(folder, heads=_HEADS[case.hash])


def _distance(case: Case, name: str) -> float:
    """How far ours is from a recorded quantity, as a share of its magnitude, at most 1."""
    try:
        ours, recorded = compute(case, name), case.recorded[name]
        return min(1.0, float((ours - recorded).abs().max() / recorded.abs().max()))
    except Exception:
        return 1.0


def _set_heads(model: X2VLM, heads: int) -> None:
    for module in model.modules():
        if isinstance(module, Attention):
            module.num_heads = heads


@torch.no_grad()
def _check(case: Case) -> Iterator[Result]:
    yield _exact("architecture", case.detected_architecture(), case.meta["architecture"])
    if "checkpoint_image_size" in case.meta:
        yield _exact(
            "checkpoint_image_size",
            case.detected.vision.image_size,
            case.meta["checkpoint_image_size"],
        )
    for name in sorted(case.meta.keys() - META_KEYS):
        yield Result(name, "unknown quantity", False)
    for name in sorted(case.recorded.keys() - INPUTS):
        yield _quantity(case, name)
    try:
        for name, ours, recorded in text_checks(case):
            yield _exact(name, ours, recorded)
    except Exception as error:
        yield Result("texts", f"{type(error).__name__}: {error}", False)
    for name in sorted(case.recorded.keys() & INPUTS - case.read):
        yield Result(name, "input that nothing checks", False)


def _quantity(case: Case, name: str) -> Result:
    """A quantity that cannot be computed has failed; the others are still worth a look."""
    try:
        return _compare(name, compute(case, name), case.recorded[name])
    except Exception as error:
        return Result(name, f"{type(error).__name__}: {error}", False)


def _exact(name: str, ours: Any, recorded: Any) -> Result:
    return Result(name, "equal" if ours == recorded else "different", ours == recorded)


def _compare(name: str, ours: Tensor | None, recorded: Tensor) -> Result:
    if ours is None:
        return Result(name, "unknown quantity", False)
    if ours.shape != recorded.shape:
        return Result(name, f"shape {tuple(ours.shape)} not {tuple(recorded.shape)}", False)
    if not recorded.is_floating_point():
        return _exact(name, ours.tolist(), recorded.tolist())
    difference = (ours - recorded).abs().max().item() if recorded.numel() else 0.0
    limit = TOLERANCE * (recorded.abs().max().item() if recorded.numel() else 0.0)
    return Result(
        name, f"{difference:.1e} of {limit:.1e}", difference <= limit
    )  # not a number is never <=


def main(folders: list[str]) -> int:
    """Prints every result and returns the exit code."""
    if not folders:
        print("usage: python -m tests.parity DIR...", file=sys.stderr)
        return 1
    failed = 0
    for folder in folders:
        for result in check_folder(Path(folder)):
            print(f"{Path(folder).name:20} {result}")
            failed += not result.passed
    print(f"{failed} failed" if failed else "all passed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
