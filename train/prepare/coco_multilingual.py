"""COCO in English, Japanese (STAIR) and Chinese (COCO-CN) ->
multilingual_{train,val,test}_{en,ja,zh}.jsonl.

    python -m train.prepare.coco_multilingual --out data/coco

Put STAIR's stair_captions_v1.2_{train,val}.json (https://github.com/STAIR-Lab-CIT/STAIR-captions)
and COCO-CN's imageid.human-written-caption.txt and coco-cn_{train,val,test}.txt
(https://huggingface.co/datasets/AIMClab-RUC/COCO-CN) into OUT/raw. Images: as for
`train.prepare.coco`.

English and Japanese are in Karpathy's split, and their test is its first 1,000 images (the list of
the usual "1k test" is not published). Chinese is in the split of COCO-CN; its images for validation
and test are in no training part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from train.prepare.coco import URL as KARPATHY
from train.prepare.common import (
    arguments,
    fetch,
    need,
    read_json,
    run,
    with_text,
    write_json_lines,
)

STAIR = "https://github.com/STAIR-Lab-CIT/STAIR-captions"
COCO_CN = "https://huggingface.co/datasets/AIMClab-RUC/COCO-CN"
TEST = 1000
SPLITS = ("train", "val", "test")

Images = dict[int, str]
"""Number -> path."""


def karpathy(images: list[dict[str, Any]]) -> tuple[dict[str, Images], dict[int, list[str]]]:
    """The images of each part, and the English captions."""
    parts: dict[str, Images] = {split: {} for split in SPLITS}
    english = {}
    for image in images:
        split = image["split"] if image["split"] != "restval" else "train"
        parts[split][image["cocoid"]] = f"{image['filepath']}/{image['filename']}"
        english[image["cocoid"]] = [sentence["raw"] for sentence in image["sentences"]]
    parts["test"] = dict(islice(parts["test"].items(), TEST))
    return parts, english


def japanese(raw: Path) -> dict[int, list[str]]:
    captions = defaultdict(list)
    for part in ("train", "val"):
        path = need(f"stair_captions_v1.2_{part}.json", raw, STAIR)
        annotations = read_json(path)["annotations"]
        for said in with_text(annotations, lambda said: said["caption"], path.name, STAIR):
            captions[said["image_id"]].append(said["caption"])
    return captions


def chinese(raw: Path) -> tuple[dict[str, Images], dict[int, list[str]]]:
    """The same as `karpathy`, of lines `COCO_train2014_000000000009#0<tab>caption`."""
    captions, parts = defaultdict(list), {}
    path = need("imageid.human-written-caption.txt", raw, COCO_CN)
    lines = (line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line)
    for name, *said in with_text(lines, lambda line: "".join(line[1:]), path.name, COCO_CN):
        captions[_number(name.partition("#")[0])].append(said[0])
    for split in SPLITS:
        names = need(f"coco-cn_{split}.txt", raw, COCO_CN).read_text("utf-8").split()
        parts[split] = {_number(name): f"{name.split('_')[1]}/{name}.jpg" for name in names}
    return parts, captions


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def entries(
    images: Images, captions: dict[int, list[str]], split: str, left_out: Collection[int]
) -> Iterator[dict[str, Any]]:
    """Training gets an entry for each caption, evaluation one for each image."""
    for number, path in images.items():
        said = [text.strip() for text in captions.get(number, ()) if text.strip()]
        common = {"image": path, "image_id": number}
        if split == "train" and number not in left_out:
            yield from ({**common, "caption": text} for text in said)
        elif split != "train" and said:
            yield {**common, "captions": said}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    archive = fetch("caption_datasets.zip", KARPATHY, options.raw)
    parts, english = karpathy(read_json(archive, "dataset_coco.json")["images"])
    chinese_parts, in_chinese = chinese(options.raw)
    held_out = {*chinese_parts["val"], *chinese_parts["test"]}
    languages = {
        "en": (parts, english),
        "ja": (parts, japanese(options.raw)),
        "zh": (chinese_parts, in_chinese),
    }
    for language, (images, captions) in languages.items():
        for split in SPLITS:
            path = options.out / f"multilingual_{split}_{language}.jsonl"
            write_json_lines(path, entries(images[split], captions, split, held_out))


if __name__ == "__main__":
    run(main)
