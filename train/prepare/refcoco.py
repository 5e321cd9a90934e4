"""RefCOCO+, RefCOCO (UNC splits) and RefCOCOg (UMD split) -> {train,val,testA,testB}.jsonl, or
{train,val,test}.jsonl, of phrases with boxes.

    python -m train.prepare.refcoco --out data/refcoco+
    python -m train.prepare.refcoco --dataset refcocog --out data/refcocog

Images are COCO's train2014. The official `refs(unc).p` is a pickle; it is read by an unpickler that
refuses all code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.data.boxes import check_units
from train.prepare.common import (
    arguments,
    fetch,
    read_json,
    read_plain_pickle,
    run,
    write_json_lines,
)

URL = (
    "https://web.archive.org/web/20220413011656/"
    "https://bvisionweb1.cs.unc.edu/licheng/referit/data/{}.zip"
)
DATASETS = {
    "refcoco+": (
        "refs(unc).p",
        {"train": 120_191, "val": 10_758, "testA": 5_726, "testB": 4_889},
    ),
    "refcoco": ("refs(unc).p", {"train": 120_624, "val": 10_834, "testA": 5_657, "testB": 5_095}),
    "refcocog": ("refs(umd).p", {"train": 80_512, "val": 4_896, "test": 9_602}),
}
"""Name of the archive -> its file of phrases, and its splits with their numbers of phrases."""


def entries(
    refs: list[dict[str, Any]], instances: dict[str, Any], split: str
) -> Iterator[dict[str, Any]]:
    """One entry for each sentence of each reference of a split; box (x, y, w, h) in pixels. Raises
    `DataError` where the boxes are not in pixels."""
    boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
    check_units(boxes.values(), "instances.json")
    names = {image["id"]: image["file_name"] for image in instances["images"]}
    for ref in refs:
        if ref["split"] == split:
            name = names[ref["image_id"]]
            image = f"{name.split('_')[1]}/{name}" if name.startswith("COCO_") else name
            for sentence in ref["sentences"]:
                about = {"image": image, "image_id": ref["image_id"], "ref_id": ref["ref_id"]}
                yield about | {"text": sentence["sent"], "box": boxes[ref["ann_id"]]}


def unpack(archive: Path, raw: Path, phrases: str) -> None:
    """The two files that are needed, beside the archive."""
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            target = raw / Path(name).name
            if target.name in (phrases, "instances.json") and not target.exists():
                target.write_bytes(content.read(name))


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], dataset={"default": "refcoco+", "choices": list(DATASETS)}
    )
    phrases, splits = DATASETS[options.dataset]
    if not (options.raw / phrases).exists():
        archive = f"{options.dataset}.zip"
        unpack(fetch(archive, URL.format(options.dataset), options.raw), options.raw, phrases)
    refs = read_plain_pickle(options.raw / phrases)
    instances = read_json(options.raw / "instances.json")
    for split, published in splits.items():
        found = entries(refs, instances, split)
        write_json_lines(options.out / f"{split}.jsonl", found, published)


if __name__ == "__main__":
    run(main)
