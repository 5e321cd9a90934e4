"""Toy photos for tests: plain colours with a square on them, and what is said of them."""

import io
import json
import tarfile

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


def toy_record(name: str) -> dict:
    """A record of `train.prepare.photo` for a photo with one square of this colour."""
    others = [other for other in COLOURS if other != name]
    return {
        "images_as": "image",
        "captions": [f"a {name} square on grey", f"there is a {name} square"],
        "regions": [{"text": f"a {name} square", "box": [0.25, 0.5, 0.5, 0.5]}],
        "phrases": [f"a {name} square"],
        "nouns": [name],
        "questions": [
            {"question": "what color is the square?", "answer": name},
            {"question": f"is there a {others[0]} square?", "answer": "no"},
        ],
        "present": [name],
        "absent": others,
    }


def toy_photo(name: str, side: int = 48) -> Image.Image:
    """Grey with a square of the colour in the left half, at the height of the middle."""
    pixels = np.full((side, side, 3), 128, np.uint8)
    pixels[side // 4 : 3 * side // 4, : side // 2] = COLOURS[name]
    return Image.fromarray(pixels)


def write_photos(path, repeats: int = 2, regions: bool = True):
    """A shard of `repeats` photos of each colour, with a box each or none; returns the path."""
    with tarfile.open(path, "w") as tar:
        for number in range(repeats):
            for name in COLOURS:
                image = io.BytesIO()
                toy_photo(name).save(image, "JPEG", quality=95)
                record = toy_record(name)
                fields = json.dumps(record if regions else record | {"regions": []}).encode()
                for suffix, content in (("jpg", image.getvalue()), ("json", fields)):
                    info = tarfile.TarInfo(f"{name}{number}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path
