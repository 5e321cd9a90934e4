"""WIT (IGLUE) -> train.jsonl, val.jsonl and test_<language>.jsonl, each line with its image in
base64.

    python -m train.prepare.wit --out data/wit

Put IGLUE's train_en.jsonl (linked from https://github.com/e-bug/iglue; the other annotations come
from there by themselves) into OUT/raw, and the files with the images (*.csv: address, tab, base64,
as CCLM reads them) into OUT/raw/images. Captions of one address belong together; those without any
letter or digit are dropped (officially kept).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from train.prepare.common import (
    IGLUE,
    arguments,
    fetch,
    need,
    read_json_lines,
    run,
    write_json_lines,
)
from x2vlm.errors import DataError

SOURCE = "https://github.com/e-bug/iglue"
LANGUAGES = ("ar", "bg", "da", "el", "en", "et", "id", "ja", "ko", "tr", "vi")
Places = dict[str, tuple[Path, int]]


def places(files: Iterable[Path]) -> Places:
    """Where the image of an address stands: file and byte of its line."""
    found: Places = {}
    for path in files:
        with path.open("rb") as file:
            start = 0
            for line in file:
                found.setdefault(line.partition(b"\t")[0].decode(), (path, start))
                start += len(line)
    return found


def entries(
    lines: Iterable[dict[str, Any]], images: Places, split: str
) -> Iterator[dict[str, Any]]:
    """Training gets an entry for each caption, evaluation one for each image; images that are
    missing are passed over."""
    captions: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        text = (line["caption_reference_description"] or "").strip()
        if any(character.isalnum() for character in text) and line["image_url"] in images:
            captions[line["image_url"]].append(text)
    for address, texts in captions.items():
        path, start = images[address]
        with path.open("rb") as file:
            file.seek(start)
            content = file.readline().partition(b"\t")[2].strip().decode()
        common = {"binary": content, "image_id": address}
        if split == "train":
            yield from ({**common, "caption": text} for text in texts)
        else:
            yield {**common, "captions": texts}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    images = places(sorted((options.raw / "images").glob("*.csv")))
    if not images:
        raise DataError(
            f"There are no picture files (*.csv) in {options.raw.name}/images. They come from "
            f"{SOURCE}.",
            "data/missing",
        )
    names = {"train": "train_en", "val": "val_en"} | {
        f"test_{language}": f"test_{language}" for language in LANGUAGES
    }
    for ours, theirs in names.items():
        name = f"{theirs}.jsonl"
        path = (
            need(name, options.raw, SOURCE)
            if ours == "train"
            else fetch(name, f"{IGLUE}/wit/annotations/{name}", options.raw)
        )
        found = entries(read_json_lines(path), images, ours)
        write_json_lines(options.out / f"{ours}.jsonl", found)


if __name__ == "__main__":
    run(main)
