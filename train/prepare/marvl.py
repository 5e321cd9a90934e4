"""MaRVL -> test_{id,sw,ta,tr,zh}.jsonl of image pairs with statements; it is trained on NLVR2
(`train.prepare.nlvr2`).

    python -m train.prepare.marvl --out data/marvl [--shots 1 2 4 10 10x2]

Images come from the authors (https://marvl-challenge.github.io/); unpack marvl-images into OUT, and
for few shots (Indonesian, Turkish and Chinese) all images of a language into
OUT/marvl_fewshot/<language>/all, as CCLM has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from train.prepare.common import (
    IGLUE,
    SHOTS,
    arguments,
    fetch,
    read_json_lines,
    run,
    write_json_lines,
)

URL = f"{IGLUE}/marvl"
FEW_SHOT = ("id", "tr", "zh")


def entries(lines: Iterable[dict[str, Any]], few: bool = False) -> Iterator[dict[str, Any]]:
    """Of the test, or of the few training examples, which name the folder of a concept too."""
    for line in lines:
        folder = f"marvl-images/{line['language']}/images/{line['concept']}"
        folder = f"marvl_fewshot/{line['language']}/all" if few else folder
        names = [PurePosixPath(line[side]).name for side in ("left_img", "right_img")]
        images = [f"{folder}/{name}" for name in names]
        yield {"images": images, "sentence": line["caption"], "label": line["label"]}


def main() -> None:
    options = arguments(__doc__.splitlines()[0], shots=SHOTS)
    for language in ("id", "sw", "ta", "tr", "zh"):
        name = f"marvl-{language}.jsonl"
        lines = read_json_lines(fetch(name, f"{URL}/zero_shot/annotations/{name}", options.raw))
        write_json_lines(options.out / f"test_{language}.jsonl", entries(lines))
    for language in FEW_SHOT:
        for shots in options.shots:
            name = f"marvl-{language}_train{shots}.jsonl"
            lines = read_json_lines(fetch(name, f"{URL}/few_shot/annotations/{name}", options.raw))
            few = options.out / f"few_shot_{language}_{shots}.jsonl"
            write_json_lines(few, entries(lines, few=True))


if __name__ == "__main__":
    run(main)
