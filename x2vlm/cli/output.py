"""What the command `x2vlm` prints and saves."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from x2vlm.errors import ParameterError


def print_answer(
    as_json: bool, info: Any, scene: Any, result: dict[str, Any], lines: list[str]
) -> None:
    """Print the lines for people, or the result with its circumstances for programs.

    Args:
        info: `Predictor.info` of what answered.
        scene: what was asked about.
    """
    if not as_json:
        for line in lines:
            print(printable(line))
        return
    media = {"kind": scene.kind, "size": list(scene.size), "notes": list(scene.notes)}
    if scene.kind == "video":
        media |= {
            "frames": list(scene.indices),
            "times": list(scene.times),
            "duration": scene.duration,
        }
    model = {"name": info.name, "hash": info.hash, "dtype": info.dtype}
    print_json({"model": model, "media": media, **result})


def printable(line: str) -> str:
    """Without characters that would steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in line)


def grounding_line(grounding: Any) -> str:
    """One line of text for one box."""
    box = " ".join(f"{edge:.0f}" for edge in grounding.box_xyxy)
    words = {
        "found": "found",
        "unsure": "unsure",
        "absent": "probably not here",
        None: "no match score",
    }[grounding.verdict]
    score = "" if grounding.match is None else f" {grounding.match:.2f}"
    hit = {True: "inside", False: "outside", None: "none"}[grounding.agreement.pointing_hit]
    heat = f"heat inside {grounding.agreement.energy_inside:.0%}, peak {hit}"
    return f"{grounding.phrase}: {words}{score}; box {box}; {heat}"


def unsure_note(info: Any) -> str:
    """Says that a question was not understood, and names one that is."""
    example = f" It understands, for example: {info.example}" if info.example else ""
    return f"unsure: {info.name} does not understand the question, or sees no answer.{example}"


def cut_note(result: Any) -> list[str]:
    """Says that a text was cut, where it was."""
    if result.truncated_at is None:
        return []
    return [f"  (cut after {result.truncated_at} characters: too long for the model)"]


def write_maps(path: Path, suffix: str, explanation: Any, scene: Any, info: Any) -> None:
    """All words on one sheet with one scale, or the maps as they are."""
    import numpy as np

    from x2vlm.visualize import contact_sheet, heat_range, overlay_heatmap

    if suffix == ".npz":
        words = np.array([word.text for word in explanation.words])
        facts = {
            "text": explanation.text,
            "target": explanation.target,
            "method": explanation.method,
            "model": info.hash,
        }
        with path.open("wb") as file:
            np.savez(file, maps=explanation.maps, words=words, score=explanation.score, **facts)
        return
    scale = heat_range(explanation.maps)
    sheet = contact_sheet(
        [
            overlay_heatmap(scene.image, heat, value_range=scale)
            for heat in (explanation.overall, *explanation.maps)
        ],
        ["all words", *(word.text for word in explanation.words)],
    )
    sheet.save(path, "PNG")


def check_out(out: str | None, *suffixes: str) -> Path | None:
    """Where to save, checked before any work is done.

    Raises:
        ParameterError: another suffix, or no such folder (`param/range`).
    """
    if out is None:
        return None
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise ParameterError(f"--out must end in {' or '.join(suffixes)}.", "param/range")
    if not path.absolute().parent.is_dir():
        raise ParameterError("The folder for --out does not exist. Make it first.", "param/range")
    return path


def save_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target first, so that a failure leaves nothing half-written under its
    name.

    Raises:
        ParameterError: it cannot be written (`param/range`).
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            draft = Path(folder) / path.name
            write(draft)
            os.replace(draft, path)
    except OSError:
        raise ParameterError(
            f"{path.name} cannot be written. Check permissions and room.", "param/range"
        ) from None
    say(f"saved {path.name}")


def print_progress(fraction: float, message: str) -> None:
    """A line that renews itself, where a person looks."""
    if sys.stderr.isatty():
        end = "\r" if fraction < 1 else "\n"
        print(f"{message}: {fraction:.0%}   ", end=end, file=sys.stderr, flush=True)


def print_download(done: int, total: int) -> None:
    """`print_progress` of a download in bytes."""
    print_progress(done / max(total, 1), f"Downloading {total / 2**20:.0f} MiB")


def say(message: str) -> None:
    """A message for the person, on standard error."""
    print(f"x2vlm: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """A result for programs, on standard output."""
    print(json.dumps(value, indent=2))
