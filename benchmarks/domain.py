"""How many images a bundled model calls outside its world: fresh sticker scenes and given photos.

python -m benchmarks.domain --model photo --files runs/photo/data/flickr8k-val.tar
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from PIL import Image

from train.data.files import FileRecords
from x2vlm.inference.domain import outside_note
from x2vlm.inference.predictor import Predictor
from x2vlm.stickers import make_record, split_seeds

FIRST = 400_000
"""Seeds of the split `test` from here on are looked at nowhere else."""


def outside_share(predictor: Predictor, images: Iterable[Image.Image]) -> float:
    """Share of the images that get the note."""
    note = outside_note(predictor.info.name)
    found = [note in predictor.encode(image).notes for image in images]
    return sum(found) / len(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.domain", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--model", default="photo", help="name or folder")
    parser.add_argument("--scenes", type=int, default=500, help="sticker scenes")
    parser.add_argument("--files", nargs="*", default=[], help="shards with photos")
    options = parser.parse_args(arguments)
    predictor = Predictor.from_pretrained(options.model)
    first = split_seeds("test").start + FIRST
    scenes = (make_record(first + i, "test")["image"] for i in range(options.scenes))
    print(f"sticker scenes: {outside_share(predictor, scenes):.1%} of {options.scenes} outside")
    for file in options.files:
        records = FileRecords([file])
        share = outside_share(predictor, (record["image"] for record in records))
        print(f"{file}: {share:.1%} of {len(records)} outside")
    return 0


if __name__ == "__main__":
    sys.exit(main())
