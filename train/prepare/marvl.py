"""MaRVL -> test_{id,sw,ta,tr,zh}.jsonl of image pairs with statements; it is trained on NLVR2
(`train.prepare.nlvr2`).

    python -m train.prepare.marvl --out data/marvl

Images come from the authors (https://marvl-challenge.github.io/); unpack marvl-images into OUT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import arguments, fetch, read_json_lines, write_json_lines

URL = "https://raw.githubusercontent.com/e-bug/iglue/main/datasets/marvl/zero_shot/annotations"


def entries(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        folder = f"marvl-images/{line['language']}/images/{line['concept']}"
        images = [f"{folder}/{line[side]}" for side in ("left_img", "right_img")]
        yield {"images": images, "sentence": line["caption"], "label": line["label"]}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    for language in ("id", "sw", "ta", "tr", "zh"):
        name = f"marvl-{language}.jsonl"
        lines = read_json_lines(fetch(name, f"{URL}/{name}", options.raw))
        write_json_lines(options.out / f"test_{language}.jsonl", entries(lines))


if __name__ == "__main__":
    main()
