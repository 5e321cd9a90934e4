"""COCO captions in Karpathy's split -> karpathy_{train,val,test}.jsonl (train: one line a caption,
restval included) and karpathy_train_images.jsonl (one line an image).

    python -m train.prepare.coco --out data/coco [--exclude data/refcoco+/val.jsonl ...]

With `--exclude`, karpathy_pretrain.jsonl is the training part without images that other tasks are
evaluated on.

Images: unpack train2014.zip and val2014.zip into the same folder. `--dataset flickr30k` does the
same for Flickr30K.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from train.prepare.common import (
    EXCLUDE,
    arguments,
    excluded,
    fetch,
    read_json,
    run,
    write_json_lines,
)

COUNTS = {
    "coco": {"train": 566_747, "val": 5_000, "test": 5_000},
    "flickr30k": {"train": 145_000, "val": 1_014, "test": 1_000},
}
"""Captions of the training part, images of the others."""
URL = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"


def entries(
    images: list[dict[str, Any]], split: str, by_image: bool = False
) -> Iterator[dict[str, Any]]:
    """Entries of one split; training gets one for each caption, evaluation, or training `by_image`,
    one for each image with all of them."""
    for image in images:
        if (image["split"] if image["split"] != "restval" else "train") != split:
            continue
        path = (
            f"{image['filepath']}/{image['filename']}" if "filepath" in image else image["filename"]
        )
        captions = [
            sentence["raw"].strip() for sentence in image["sentences"] if sentence["raw"].strip()
        ]
        common = {"image": path, "image_id": image.get("cocoid", image.get("imgid"))}
        if split == "train" and not by_image:
            yield from ({**common, "caption": caption} for caption in captions)
        else:
            yield {**common, "captions": captions}


def main(dataset: str = "coco") -> None:
    options = arguments(
        __doc__.splitlines()[0],
        dataset={"default": dataset, "choices": list(COUNTS)},
        exclude=EXCLUDE,
    )
    content = read_json(
        fetch("caption_datasets.zip", URL, options.raw), f"dataset_{options.dataset}.json"
    )
    for split, published in COUNTS[options.dataset].items():
        found = entries(content["images"], split)
        write_json_lines(options.out / f"karpathy_{split}.jsonl", found, published)
    write_json_lines(
        options.out / "karpathy_train_images.jsonl", entries(content["images"], "train", True)
    )
    if options.exclude:
        left_out = excluded(options.exclude)
        kept = (
            entry
            for entry in entries(content["images"], "train")
            if entry["image_id"] not in left_out
        )
        write_json_lines(options.out / "karpathy_pretrain.jsonl", kept)


if __name__ == "__main__":
    run(main)
