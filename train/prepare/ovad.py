"""OVAD with given boxes -> test.jsonl of boxes with 117 attributes each, attributes.json.

    python -m train.prepare.ovad --out data/ovad

Put ovad2000.json of https://lmb.informatik.uni-freiburg.de/resources/datasets/ovad.zip into OUT/raw
and COCO's val2017 into OUT/val2017. The texts of an attribute are those that the authors measure
X-VLM by: "a blue color", "the has blue color", .. (https://github.com/OVAD-Benchmark).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from train.prepare.common import arguments, need, read_json, run, write_json, write_json_lines
from x2vlm.errors import DataError

SOURCE = "https://lmb.informatik.uni-freiburg.de/resources/datasets/ovad.zip"
SMALLEST = 50
"""Pixels that an object covers at least."""
MORE_WORDS = {
    "young/baby": "/kid/kids/child/toddler/boy/girl",
    "adult/old/aged": "/teen/elder",
}
TEMPLATES = {
    "is": ("{0}", "a {0}", "a is {0}", "the {0}", "the is {0}"),
    "has": ("{0} {1}", "a {0} {1}", "a has {0} {1}", "the {0} {1}", "the has {0} {1}"),
}
"""Their templates without a noun, which they leave out for X-VLM."""


def attributes(content: dict[str, Any]) -> list[dict[str, Any]]:
    """`name`, `group` (head, medium or tail, by how often it occurs) and `texts`, in the order of
    the labels."""
    found = []
    for one in sorted(content["attributes"], key=lambda one: one["id"]):
        kind, _, words = one["name"].partition(":")
        words += MORE_WORDS.get(words, "")
        texts = [
            template.format(word, kind.replace(" tone", ""))
            for word in words.split("/")
            for template in TEMPLATES[one["is_has_att"]]
        ]
        found.append({"name": one["name"], "group": one["freq_set"], "texts": texts})
    return found


def entries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Raises `DataError` where a box has another number of labels than there are attributes."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    count = len(content["attributes"])
    for box in content["annotations"]:
        if len(box["att_vec"]) != count:
            raise DataError(
                f"ovad2000.json, box {box['id']}: {len(box['att_vec'])} labels instead of {count}. "
                f"Get the file again from {SOURCE}.",
                "data/entry",
            )
        if box["area"] >= SMALLEST:
            image = f"val2017/{names[box['image_id']]}"
            yield {"image": image, "box": box["bbox"], "attributes": box["att_vec"]}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    content = read_json(need("ovad2000.json", options.raw, SOURCE))
    write_json(options.out / "attributes.json", attributes(content))
    write_json_lines(options.out / "test.jsonl", entries(content))


if __name__ == "__main__":
    run(main)
