"""NLVR2 -> {train,dev,test}.jsonl of image pairs with statements.

    python -m train.prepare.nlvr2 --out data/nlvr2

Images come from the authors on request (https://lil.nlp.cornell.edu/nlvr/); unpack them as
images/{train,dev,test1}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import arguments, fetch, read_json_lines, run, write_json_lines

URL = "https://raw.githubusercontent.com/lil-lab/nlvr/master/nlvr2/data"

SPLITS = {"train": ("train", 86_373), "dev": ("dev", 6_982), "test": ("test1", 6_967)}
"""Our name -> theirs, and the number of statements."""


def entries(lines: Iterable[dict[str, Any]], folder: str) -> Iterator[dict[str, Any]]:
    """Left and right image of `train-10171-0-0` are `train-10171-0-img0.png` and `-img1.png`."""
    for line in lines:
        stem = "-".join(line["identifier"].split("-")[:3])
        parent = (
            f"images/{folder}/{line['directory']}" if "directory" in line else f"images/{folder}"
        )
        yield {
            "images": [f"{parent}/{stem}-img{side}.png" for side in (0, 1)],
            "sentence": line["sentence"],
            "label": line["label"],
        }


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    for split, (name, published) in SPLITS.items():
        path = fetch(f"{name}.json", f"{URL}/{name}.json", options.raw)
        found = entries(read_json_lines(path), name)
        write_json_lines(options.out / f"{split}.jsonl", found, published)


if __name__ == "__main__":
    run(main)
