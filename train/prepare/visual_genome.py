"""Visual Genome -> regions/vg_regions.jsonl, regions/vg_objects.jsonl (region-text files) and
vg/captions.jsonl.

    python -m train.prepare.visual_genome --out data --exclude data/coco/karpathy_val.jsonl
    data/coco/karpathy_test.jsonl

Images: VG_100K and VG_100K_2 in one folder OUT/vg/VG_100K. Images that COCO's evaluation splits
show are left out (`--exclude`). Boxes that leave their image are cut to it, boxes without area are
dropped; both are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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

URL = "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset"


def regions(
    images: Sequence[dict[str, Any]], sizes: dict[int, tuple[int, int]], problems: Counter
) -> Iterator[dict[str, Any]]:
    """Region descriptions: `{"image", "elems": [{"bb", "caption"}]}`. Raises `DataError` where the
    boxes are not in pixels."""
    boxes = (_box(region) for image in images for region in image["regions"])
    check_units(boxes, "region_descriptions.json")
    for image in images:
        if image["id"] in sizes:
            found = [(_box(r), {"caption": r["phrase"].strip()}) for r in image["regions"]]
            yield from _entry(image["id"], found, sizes, problems)


def objects(
    images: Sequence[dict[str, Any]], sizes: dict[int, tuple[int, int]], problems: Counter
) -> Iterator[dict[str, Any]]:
    """Objects with their attributes: `{"image", "elems": [{"bb", "caption", "attributes"}]}`.
    Raises `DataError` where the boxes are not in pixels."""
    boxes = (_box(item) for image in images for item in image["attributes"])
    check_units(boxes, "attributes.json")
    for image in images:
        if image["image_id"] in sizes:
            found = []
            for item in image["attributes"]:
                said = {"caption": item["names"][0].strip()}
                attributes = [
                    attribute.strip()
                    for attribute in item.get("attributes") or []
                    if attribute.strip()
                ]
                said |= {"attributes": [" ".join(attributes)]} if attributes else {}
                found.append((_box(item), said))
            yield from _entry(image["image_id"], found, sizes, problems)


def _box(item: dict[str, Any]) -> list[float]:
    """(x, y, w, h) of a region, whose sides have long names, or an object."""
    long = "width" in item
    return [item[key] for key in ("x", "y", "width" if long else "w", "height" if long else "h")]


def _entry(image_id: int, found, sizes, problems: Counter) -> Iterator[dict[str, Any]]:
    boxes = [
        (inside(box, *sizes[image_id], problems), said) for box, said in found if said["caption"]
    ]
    elements = [{"bb": box, **said} for box, said in boxes if box]
    if elements:
        yield {"image": f"vg/VG_100K/{image_id}.jpg", "elems": elements}


def main() -> None:
    options = arguments(__doc__.splitlines()[0], exclude=EXCLUDE)
    left_out = excluded(options.exclude)
    load = {
        name: read_json(
            fetch(f"{name}.json.zip", f"{URL}/{name}.json.zip", options.raw), f"{name}.json"
        )
        for name in ("image_data", "region_descriptions", "attributes")
    }
    sizes = {
        p["image_id"]: (p["width"], p["height"])
        for p in load["image_data"]
        if p.get("coco_id") not in left_out
    }
    problems: Counter = Counter()
    write_json_lines(
        options.out / "regions/vg_regions.jsonl",
        regions(load["region_descriptions"], sizes, problems),
    )
    write_json_lines(
        options.out / "regions/vg_objects.jsonl", objects(load["attributes"], sizes, problems)
    )
    captions = (
        {"image": f"VG_100K/{image['id']}.jpg", "caption": region["phrase"].strip()}
        for image in load["region_descriptions"]
        for region in image["regions"]
        if image["id"] in sizes and region["phrase"].strip()
    )
    write_json_lines(options.out / "vg/captions.jsonl", captions)
    say_of_boxes(problems)


if __name__ == "__main__":
    run(main)
