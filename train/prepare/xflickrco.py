"""xFlickr&CO -> test_{en,de,es,id,ja,ru,tr,zh}.jsonl; it is trained on English Flickr30K
(`train.prepare.flickr30k`).

    python -m train.prepare.xflickrco --out data/xflickrco [--shots 1 5 10 25 50 100]

Images: Flickr30K in OUT/flickr30k-images and COCO's val2014 in OUT/val2014.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

URL = f"{IGLUE}/xFlickrCO/annotations"


def entries(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pictures without a caption are dropped, as officially."""
    for line in lines:
        captions = [sentence.strip() for sentence in line["sentences"] if sentence.strip()]
        if captions:
            folder = "val2014" if "COCO" in line["img_path"] else "flickr30k-images"
            yield {
                "image": f"{folder}/{line['img_path']}",
                "image_id": line["id"],
                "captions": captions,
            }


def main() -> None:
    options = arguments(__doc__.splitlines()[0], shots=SHOTS)
    for language in ("en", "de", "es", "id", "ja", "ru", "tr", "zh"):
        lines = read_json_lines(
            fetch(f"{language}.jsonl", f"{URL}/{language}/test.jsonl", options.raw)
        )
        write_json_lines(options.out / f"test_{language}.jsonl", entries(lines))
        for shots in options.shots if language != "en" else ():
            name = f"train_{shots}.jsonl"
            path = fetch(f"{language}_{name}", f"{URL}/{language}/{name}", options.raw)
            few = options.out / f"few_shot_{language}_{shots}.jsonl"
            write_json_lines(few, entries(read_json_lines(path)))


if __name__ == "__main__":
    run(main)
