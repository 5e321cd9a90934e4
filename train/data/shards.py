"""Draws the sticker world into WebDataset shards once, for machines where drawing would hold back
the training step.

    python -m train.data.shards --kind scene --count 20000 --out runs/shards/scenes --workers 2

A run reads them with `data: {files: ["runs/shards/scenes/*.tar"], format: record}`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from train.data.stickers import StickerData, StickerRecords

TEXTS = (
    *("image_id", "captions", "false_captions", "objects", "regions", "questions", "absent"),
    *("free_captions", "free_regions", "free_absent", "free_questions", "order_questions"),
    *("statement", "label"),
)


def write_shard(number: int, data: StickerData, size: int, per_shard: int, folder: Path) -> Path:
    """Shard `number` of `data`: samples `number * per_shard` up to the next shard or the end. Never
    half a file."""
    records = StickerRecords(data, size)
    path = folder / f"{data.kind}-{number:05d}.tar"
    draft = path.with_suffix(".partial")
    with tarfile.open(draft, "w") as tar:
        for index in range(number * per_shard, min((number + 1) * per_shard, len(records))):
            _add(tar, f"{index:09d}", records[index])
    os.replace(draft, path)
    return path


def write_shards(
    data: StickerData, size: int, folder: Path, per_shard: int = 1000, workers: int = 1
) -> list[Path]:
    """All shards of `data` into a folder, images as PNG so that nothing is lost."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(-(-data.count // per_shard))
    job = partial(write_shard, data=data, size=size, per_shard=per_shard, folder=folder)
    if workers <= 1:
        return [job(number) for number in numbers]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(job, numbers))


def _add(tar: tarfile.TarFile, key: str, record: dict[str, Any]) -> None:
    name = next(name for name in ("image", "frames", "images") if name in record)
    images = [record[name]] if name == "image" else record[name]
    texts = {field: record[field] for field in TEXTS if field in record} | {"images_as": name}
    members = {"json": json.dumps(texts).encode()}
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        members[f"{number:03d}.png"] = buffer.getvalue()
    for suffix, content in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.data.shards", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--kind", default="scene", choices=["scene", "video", "order", "pair"])
    parser.add_argument("--split", default="train")
    parser.add_argument("--first", type=int, default=0, help="first seed of the split")
    parser.add_argument("--count", type=int, required=True, help="samples")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures in pixels")
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", required=True, help="folder of the shards")
    a = parser.parse_args()
    data = StickerData(kind=a.kind, split=a.split, first=a.first, count=a.count)
    paths = write_shards(data, a.size, Path(a.out), a.per_shard, a.workers)
    print(f"{a.count} samples in {len(paths)} shards under {a.out}")


if __name__ == "__main__":
    main()
