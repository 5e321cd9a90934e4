"""Multi30K -> {train,val,test}_{en,de,fr,cs}.jsonl: photos of Flickr30K with captions in four
languages.

    python -m train.prepare.multi30k --out data/multi30k

English and German have five captions a photo (task 2 of the authors), French and Czech one
translated caption (task 1). `test` is that of 2016. Images: Flickr30K, in the same folder.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from train.prepare.common import arguments, fetch, run, write_json_lines

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data"
TASK_1 = {"train": "train", "val": "val", "test": "test_2016_flickr"}
TASK_2 = {"train": "train", "val": "val", "test": "test_2016"}


def sources(split: str, language: str) -> tuple[str, list[str]]:
    """The authors' list of images and the files with a caption for each of them."""
    if language in ("en", "de"):
        name = TASK_2[split]
        return f"task2/image_splits/{name}_images.txt", [
            f"task2/raw/{name}.{number}.{language}.gz" for number in range(1, 6)
        ]
    name = TASK_1[split]
    return f"task1/image_splits/{name}.txt", [f"task1/raw/{name}.{language}.gz"]


def entries(
    images: Sequence[str], texts: Sequence[Sequence[str]], split: str
) -> Iterator[dict[str, Any]]:
    """Training gets an entry for each caption, evaluation one for each image; every text list is
    parallel to the images."""
    for image, *captions in zip(images, *texts, strict=True):
        common, captions = (
            {"image": image, "image_id": image},
            [caption for caption in captions if caption],
        )
        if split == "train":
            yield from ({**common, "caption": caption} for caption in captions)
        else:
            yield {**common, "captions": captions}


def read_lines(path: Path) -> list[str]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    for split in ("train", "val", "test"):
        for language in ("en", "de", "fr", "cs"):
            images, texts = sources(split, language)
            first, *others = [
                read_lines(fetch(PurePosixPath(path).name, f"{URL}/{path}", options.raw))
                for path in (images, *texts)
            ]
            write_json_lines(
                options.out / f"{split}_{language}.jsonl", entries(first, others, split)
            )


if __name__ == "__main__":
    run(main)
