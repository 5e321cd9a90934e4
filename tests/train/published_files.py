"""Small files as publishers write them."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from x2vlm.media.writing import write_video

WIDTH, HEIGHT = 48, 36


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big")
    shape = (HEIGHT, WIDTH, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")


def json_file(path: Path, value) -> None:
    text(path, json.dumps(value))


def json_lines(path: Path, values: list) -> None:
    text(path, "".join(json.dumps(value) + "\n" for value in values))


def zip_file(path: Path, members: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "a") as archive:
        for name, value in members.items():
            archive.writestr(name, value if isinstance(value, str) else json.dumps(value))


def video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video([Image.new("RGB", (32, 32), (40 * i, 90, 90)) for i in range(6)], 4, path)


def coco_name(part: str, number: int) -> str:
    return f"COCO_{part}_{number:012d}.jpg"
