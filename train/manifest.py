"""What a checkpoint of a run says of itself (`manifest.json`), and the check of its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from x2vlm.errors import CheckpointError

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
        step: optimiser steps taken; the next one has this number.
        settings: the run's configuration and data fingerprints, flat, see `flatten`.
        samples_read: position in each task's stream.
        bad_samples: samples that could not be read so far.
        metrics: results of the evaluation after this very step, {} without.
        world_size: training processes.
        versions: Python and libraries.
        files: name -> {"size", "sha256"}.
    """

    step: int
    settings: dict[str, Any]
    samples_read: dict[str, int]
    bad_samples: int
    metrics: dict[str, float]
    world_size: int
    versions: dict[str, str]
    files: dict[str, dict[str, Any]]


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint folder.

    Raises:
        CheckpointError: it is missing or damaged (`ckpt/damaged`), or of a newer format
            (`ckpt/format`).
    """
    try:
        document = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        content = document["content"]
        if document["sha256"] != hashlib.sha256(_canonical(content)).hexdigest():
            raise ValueError("checksum")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} has no manifest.json.", "ckpt/damaged") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"manifest.json of {path.name} is damaged.", "ckpt/damaged"
        ) from error
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path.name} has format {content['format']}; this version reads {FORMAT}.",
            "ckpt/format",
        )
    return Manifest(**{key: value for key, value in content.items() if key != "format"})


def verify(path: Path) -> Manifest:
    """Reads every file of a checkpoint and compares sizes and SHA-256. Raises `CheckpointError`
    that names the damage."""
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        try:
            size = (path / name).stat().st_size
            if size != expected["size"]:
                message = (
                    f"{name} of {path.name} has {size:,} bytes instead of {expected['size']:,}."
                )
                raise CheckpointError(message, "ckpt/damaged")
            with open(path / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                    raise CheckpointError(
                        f"{name} of {path.name} has changed since it was written.", "ckpt/damaged"
                    )
        except OSError as error:
            raise CheckpointError(
                f"{name} of {path.name} is missing or unreadable.", "ckpt/damaged"
            ) from error
    return manifest


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def seal(manifest: Manifest) -> bytes:
    """manifest.json of a checkpoint; `read_manifest` reads it back."""
    content = {"format": FORMAT, **asdict(manifest)}
    sealed = {"content": content, "sha256": hashlib.sha256(_canonical(content)).hexdigest()}
    return json.dumps(sealed, indent=1).encode()
