"""SBU, CC3M and CC12M: lists of addresses and captions -> JSON lines of the images that can still
be had.

    python -m train.prepare.web_pairs --dataset sbu --out data/sbu --workers 32

Addresses die: expect 70-90 %. Images are shrunk to 512 px at the shorter side and stored as JPEG
below OUT/images; the run can be repeated and goes on. CC3M and CC12M: put Google's list
(Train_GCC-training.tsv, cc12m.tsv) into OUT/raw.
"""

from __future__ import annotations

import hashlib
import tarfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from train.prepare.common import arguments, fetch, need, write_json_lines
from x2vlm.media import decode_image

SBU = "https://www.cs.rice.edu/~vo9/sbucaptions/sbu-captions-all.tar.gz"
LISTS = {"cc3m": ("Train_GCC-training.tsv", False), "cc12m": ("cc12m.tsv", True)}
SHORTER_SIDE = 512
MAX_BYTES = 20_000_000
BATCH = 10_000


def pairs_of_table(path: Path, address_first: bool) -> Iterator[tuple[str, str]]:
    """(address, caption) of a tab-separated list; lines without two fields are passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 2 and all(fields):
                yield (fields[0], fields[1]) if address_first else (fields[1], fields[0])


def pairs_of_sbu(path: Path) -> Iterator[tuple[str, str]]:
    import json

    with tarfile.open(path) as tar:
        member = next(member for member in tar if member.name.endswith(".json"))
        content = json.load(tar.extractfile(member))
    yield from zip(content["image_urls"], content["captions"], strict=True)


def store(address: str, folder: Path) -> str | None:
    """The name of the stored image, None when it cannot be had or is no image."""
    name = hashlib.sha256(address.encode()).hexdigest()[:20]
    path = folder / name[:2] / f"{name}.jpg"
    if path.exists():
        return f"{folder.name}/{name[:2]}/{path.name}"
    if not address.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(address, timeout=20) as response:
            content = response.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            return None
        return f"{folder.name}/{name[:2]}/{path.name}" if shrink(content, path) else None
    except Exception:  # a server may fail in any way; the next address is tried
        return None


def shrink(content: bytes, path: Path) -> bool:
    """Stores an image as JPEG with at most `SHORTER_SIDE` pixels at its shorter side; False when it
    is none or tiny."""
    image = decode_image(content)
    if min(image.size) < 32:
        return False
    scale = min(1.0, SHORTER_SIDE / min(image.size))
    if scale < 1:
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    image.save(partial, "JPEG", quality=90)
    partial.replace(path)
    return True


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0],
        dataset={"required": True, "choices": ["sbu", *LISTS]},
        workers={"type": int, "default": 16},
        limit={"type": int, "help": "addresses at most"},
    )
    if options.dataset == "sbu":
        pairs = pairs_of_sbu(fetch("sbu-captions-all.tar.gz", SBU, options.raw))
    else:
        name, first = LISTS[options.dataset]
        pairs = pairs_of_table(
            need(name, options.raw, "https://ai.google.com/research/ConceptualCaptions"), first
        )
    pairs, images = islice(pairs, options.limit), options.out / "images"
    with ThreadPoolExecutor(options.workers) as pool, tqdm(unit=" pictures") as bar:
        number = 0
        while batch := list(islice(pairs, BATCH)):
            names = list(pool.map(lambda pair: store(pair[0], images), batch))
            kept = [
                {"image": name, "caption": caption.strip()}
                for name, (_, caption) in zip(names, batch)
                if name and caption.strip()
            ]
            bar.update(len(batch))
            write_json_lines(options.out / f"{options.dataset}-{number:05d}.jsonl", kept)
            number += 1


if __name__ == "__main__":
    main()
