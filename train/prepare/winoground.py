"""Winoground -> test.jsonl of two images with two captions each.

    python -m train.prepare.winoground --out data/winoground

Accept the terms of https://huggingface.co/datasets/facebook/winoground, put its data/examples.jsonl
into OUT/raw and unpack data/images.zip into OUT/images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import arguments, need, read_json_lines, run, write_json_lines

SOURCE = "https://huggingface.co/datasets/facebook/winoground (data/examples.jsonl)"


def entries(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Caption n is true of image n alone."""
    for line in lines:
        yield {
            "images": [f"images/{line[f'image_{side}']}.png" for side in (0, 1)],
            "captions": [line[f"caption_{side}"] for side in (0, 1)],
        }


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    lines = read_json_lines(need("examples.jsonl", options.raw, SOURCE))
    write_json_lines(options.out / "test.jsonl", entries(lines), 400)


if __name__ == "__main__":
    run(main)
