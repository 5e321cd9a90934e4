"""COCO's object boxes -> regions/coco_objects.jsonl (a region-text file).

    python -m train.prepare.coco_objects --out data --exclude data/coco/karpathy_val.jsonl
    data/coco/karpathy_test.jsonl

Images: those of `train.prepare.coco`, in OUT/coco/train2014 and OUT/coco/val2014. Evaluation images
are left out (`--exclude`), crowds too: their box is of no single thing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from train.data.boxes import check_units, inside, say_of_boxes
from train.prepare.common import (
    EXCLUDE,
    arguments,
    excluded,
    fetch,
    read_json,
    run,
    write_json_lines,
)

ARCHIVE = "annotations_trainval2014.zip"
URL = f"http://images.cocodataset.org/annotations/{ARCHIVE}"


def objects(
    content: dict[str, Any], part: str, left_out: Collection[int], problems: Counter
) -> Iterator[dict[str, Any]]:
    """Objects with the names of their categories: `{"image", "elems": [{"bb", "caption"}]}`. Raises
    `DataError` where the boxes are not in pixels."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    check_units((a["bbox"] for a in content["annotations"]), f"instances_{part}.json")
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            of_image[annotation["image_id"]].append(annotation)
    for image in content["images"]:
        if image["id"] in left_out:
            continue
        found = [
            (inside(a["bbox"], image["width"], image["height"], problems), a)
            for a in of_image[image["id"]]
        ]
        elements = [{"bb": box, "caption": names[a["category_id"]]} for box, a in found if box]
        if elements:
            yield {"image": f"coco/{part}/{image['file_name']}", "elems": elements}


def main() -> None:
    options = arguments(__doc__.splitlines()[0], exclude=EXCLUDE)
    left_out, archive, problems = (
        excluded(options.exclude),
        fetch(ARCHIVE, URL, options.raw),
        Counter(),
    )
    entries = (
        entry
        for part in ("train2014", "val2014")
        for entry in objects(
            read_json(archive, f"annotations/instances_{part}.json"), part, left_out, problems
        )
    )
    write_json_lines(options.out / "regions/coco_objects.jsonl", entries)
    say_of_boxes(problems)


if __name__ == "__main__":
    run(main)
