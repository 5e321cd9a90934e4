"""SBU, CC3M (also in six languages), CC12M and LAION: lists of addresses and captions -> JSON lines
of the images that can still be had.

    python -m train.prepare.web_pairs --dataset sbu --out data/sbu --workers 32

Addresses die: expect 70-90 %. Images are shrunk to 512 px at the shorter side and stored as JPEG
below OUT/images; the run can be repeated and goes on. What OUT/raw must hold:

    cc3m, cc12m      Google's lists, Train_GCC-training.tsv and cc12m.tsv
    cc3m_6languages  the same list for every language, Train_GCC-training_{cs,de,en,fr,ja,zh}.tsv.
                     The translations come from UC² (https://github.com/zmykevin/UC2), whose files
                     are not described anywhere, so bring them into this form
    laion            parquet files of LAION with the columns URL and TEXT; a billion images are
                     better downloaded by img2dataset, whose shards are read as they are
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from train.prepare.common import arguments, fetch, need, run, with_text, write_json_lines
from x2vlm.errors import DataError
from x2vlm.media import decode_image

SBU = "https://www.cs.rice.edu/~vo9/sbucaptions/sbu-captions-all.tar.gz"
CONCEPTUAL = "https://ai.google.com/research/ConceptualCaptions"
LANGUAGES = ("cs", "de", "en", "fr", "ja", "zh")
UC2 = "https://github.com/zmykevin/UC2"
LAION = "https://huggingface.co/datasets/laion"
SHORTER_SIDE = 512
MAX_BYTES = 20_000_000
BATCH = 10_000


def pairs_of_table(path: Path, address_first: bool) -> Iterator[tuple[str, str]]:
    """(address, caption) of a tab-separated list; lines without two fields are passed over."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) == 2 and all(fields):
                address, caption = fields if address_first else reversed(fields)
                yield address, caption.strip()


def pairs_of_languages(raw: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(address, captions by language) of the lists of CC3M in six languages."""
    captions: dict[str, dict[str, str]] = defaultdict(dict)
    for language in LANGUAGES:
        path = need(f"Train_GCC-training_{language}.tsv", raw, UC2)
        for address, caption in pairs_of_table(path, address_first=False):
            captions[address][language] = caption
    yield from captions.items()


def pairs_of_laion(raw: Path) -> Iterator[tuple[str, str]]:
    """(address, caption) of the parquet files in `raw`. Raises `DataError` for other columns."""
    import pyarrow.parquet

    files = sorted(raw.glob("*.parquet"))
    if not files:
        raise DataError(
            f"There are no parquet files in {raw.name}/. They come from {LAION}.", "data/missing"
        )
    for path in files:
        file = pyarrow.parquet.ParquetFile(path)
        if not {"URL", "TEXT"} <= set(file.schema_arrow.names):
            raise DataError(
                f"{path.name} has the columns {', '.join(file.schema_arrow.names)}; expected are "
                f"URL and TEXT. LAION's files come from {LAION}.",
                "data/key",
            )
        for batch in file.iter_batches(columns=["URL", "TEXT"]):
            yield from ((row["URL"], row["TEXT"] or "") for row in batch.to_pylist())


def pairs_of_sbu(path: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(path) as tar:
        member = next(member for member in tar if member.name.endswith(".json"))
        content = json.load(tar.extractfile(member))
    for address, caption in zip(content["image_urls"], content["captions"], strict=True):
        yield address, caption.strip()


DATASETS: dict[str, tuple[str, Callable[[Path], Iterator]]] = {
    "sbu": (SBU, lambda raw: pairs_of_sbu(fetch("sbu-captions-all.tar.gz", SBU, raw))),
    "cc3m": (
        CONCEPTUAL,
        lambda raw: pairs_of_table(need("Train_GCC-training.tsv", raw, CONCEPTUAL), False),
    ),
    "cc12m": (CONCEPTUAL, lambda raw: pairs_of_table(need("cc12m.tsv", raw, CONCEPTUAL), True)),
    "cc3m_6languages": (UC2, pairs_of_languages),
    "laion": (LAION, pairs_of_laion),
}
"""Name -> where its publisher keeps it, and what reads it from a folder."""


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
        dataset={"required": True, "choices": list(DATASETS)},
        workers={"type": int, "default": 16},
        limit={"type": int, "help": "addresses at most"},
    )
    source, read = DATASETS[options.dataset]
    pairs = with_text(read(options.raw), lambda pair: "".join(pair[1]), "the list", source)
    pairs, images = islice(pairs, options.limit), options.out / "images"
    with ThreadPoolExecutor(options.workers) as pool, tqdm(unit=" pictures") as bar:
        number = 0
        while batch := list(islice(pairs, BATCH)):
            names = list(pool.map(lambda pair: store(pair[0], images), batch))
            kept = [
                {"image": name, "caption": caption}
                for name, (_, caption) in zip(names, batch)
                if name
            ]
            bar.update(len(batch))
            write_json_lines(options.out / f"{options.dataset}-{number:05d}.jsonl", kept)
            number += 1


if __name__ == "__main__":
    run(main)
