"""Visual Genome -> regions/vg_regions.jsonl, regions/vg_objects.jsonl (region-text files) and vg/captions.jsonl.

    python -m train.prepare.visual_genome --out data --exclude data/coco/karpathy_val.jsonl data/coco/karpathy_test.jsonl

Pictures: VG_100K and VG_100K_2 in one folder VG_100K. Pictures that COCO's evaluation splits show are left out (`--exclude`).
Boxes that leave their picture are cut to it, boxes without area are dropped; both are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from train.prepare.common import arguments, fetch, read_json, read_json_lines, write_json_lines

URL = "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset"


def inside(box_xywh: list[float], width: int, height: int, problems: Counter) -> list[float] | None:
    """The part of the box within the picture; None when there is none."""
    x, y, w, h = box_xywh
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if right - left < 1 or bottom - top < 1:
        problems["without area"] += 1
        return None
    problems["cut to the picture"] += [left, top, right - left, bottom - top] != [x, y, w, h]
    return [left, top, right - left, bottom - top]


def regions(
    pictures: Iterable[dict[str, Any]], sizes: dict[int, tuple[int, int]], problems: Counter
) -> Iterator[dict[str, Any]]:
    """Region descriptions: `{"image", "elems": [{"bb", "caption"}]}`."""
    for picture in pictures:
        if picture["id"] in sizes:
            found = [((r["x"], r["y"], r["width"], r["height"]), {"caption": r["phrase"].strip()}) for r in picture["regions"]]
            yield from _entry(picture["id"], found, sizes, problems)


def objects(
    pictures: Iterable[dict[str, Any]], sizes: dict[int, tuple[int, int]], problems: Counter
) -> Iterator[dict[str, Any]]:
    """Objects with their attributes: `{"image", "elems": [{"bb", "caption", "attributes"}]}`."""
    for picture in pictures:
        if picture["image_id"] in sizes:
            found = []
            for item in picture["attributes"]:
                said = {"caption": item["names"][0].strip()}
                attributes = [attribute.strip() for attribute in item.get("attributes") or [] if attribute.strip()]
                said |= {"attributes": [" ".join(attributes)]} if attributes else {}
                found.append(((item["x"], item["y"], item["w"], item["h"]), said))
            yield from _entry(picture["image_id"], found, sizes, problems)


def _entry(image_id: int, found, sizes, problems: Counter) -> Iterator[dict[str, Any]]:
    boxes = [(inside(list(box), *sizes[image_id], problems), said) for box, said in found if said["caption"]]
    elements = [{"bb": box, **said} for box, said in boxes if box]
    if elements:
        yield {"image": f"VG_100K/{image_id}.jpg", "elems": elements}


def main() -> None:
    exclude = {"nargs": "*", "type": Path, "default": [], "help": "files whose image_id are COCO pictures to leave out"}
    options = arguments(__doc__.splitlines()[0], exclude=exclude)
    left_out = {entry["image_id"] for path in options.exclude for entry in read_json_lines(path)}
    load = {
        name: read_json(fetch(f"{name}.json.zip", f"{URL}/{name}.json.zip", options.raw), f"{name}.json")
        for name in ("image_data", "region_descriptions", "attributes")
    }
    sizes = {p["image_id"]: (p["width"], p["height"]) for p in load["image_data"] if p.get("coco_id") not in left_out}
    problems: Counter = Counter()
    write_json_lines(options.out / "regions/vg_regions.jsonl", regions(load["region_descriptions"], sizes, problems))
    write_json_lines(options.out / "regions/vg_objects.jsonl", objects(load["attributes"], sizes, problems))
    captions = (
        {"image": f"VG_100K/{picture['id']}.jpg", "caption": region["phrase"].strip()}
        for picture in load["region_descriptions"]
        for region in picture["regions"]
        if picture["id"] in sizes and region["phrase"].strip()
    )
    write_json_lines(options.out / "vg/captions.jsonl", captions)
    print(", ".join(f"{count} boxes {problem}" for problem, count in problems.items()) or "no box needed a change")


if __name__ == "__main__":
    main()
