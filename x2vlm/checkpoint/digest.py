"""The SHA-256 of a folder's weights, beside them in the format of `sha256sum`."""

from __future__ import annotations

from pathlib import Path

from x2vlm.checkpoint.content import shown
from x2vlm.checkpoint.source import WEIGHTS
from x2vlm.errors import CheckpointError
from x2vlm.hub import sha256_of

DIGEST = WEIGHTS + ".sha256"


def write_digest(folder: Path) -> None:
    """Records the SHA-256 of the weights in a folder."""
    line = f"{sha256_of(folder / WEIGHTS)}  {WEIGHTS}\n"
    (folder / DIGEST).write_text(line, encoding="utf-8")


def verify(folder: Path) -> str:
    """Compares the weights in a folder with their recorded SHA-256, and returns it.

    Raises:
        CheckpointError: they differ (`ckpt/damaged`), or one of the two files is not there
            (`ckpt/source`).
    """
    for name in (WEIGHTS, DIGEST):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"The folder {shown(folder.name)} has no {name}, so its weights cannot be "
                f"verified. Give a folder that this package saved.",
                "ckpt/source",
            )
    found = sha256_of(folder / WEIGHTS)
    if (folder / DIGEST).read_bytes().split()[:1] != [found.encode()]:
        raise CheckpointError(
            f"{WEIGHTS} in {shown(folder.name)} is not what was saved: its SHA-256 differs from "
            f"the one in {DIGEST}. Copy or download it again.",
            "ckpt/damaged",
        )
    return found
