"""Write a sample of the world to look at: `python -m x2vlm.stickers --seed 7 --count 12 --out DIR`.

DIR gets PNG images with their boxes drawn beside them, GIF videos, `records.json`, and `index.html`
that shows all.
"""

import argparse
import html
import json
from pathlib import Path

from PIL import Image, ImageDraw

from x2vlm.errors import ParameterError
from x2vlm.stickers.records import (
    make_order_record,
    make_pair_record,
    make_record,
    make_video_record,
)
from x2vlm.stickers.splits import SPLITS, split_seeds

STYLE = (
    "body{font:15px "
    "sans-serif;margin:24px;max-width:1100px}article{display:flex;gap:16px;margin:24px "
    "0}img{height:260px}"
)


def draw_regions(image: Image.Image, regions: list[dict]) -> Image.Image:
    """The image with the box of every region phrase."""
    picture = image.copy()
    draw = ImageDraw.Draw(picture)
    for region in regions:
        cx, cy, w, h = (value * picture.width for value in region["box"])
        draw.rectangle([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], outline=(255, 0, 200))
    return picture


def write_record(record: dict, name: str, out: Path) -> tuple[list[str], dict]:
    """Save the images of any kind of record; returns their file names and the record's plain
    texts."""
    texts = {
        key: record[key]
        for key in record
        if key not in ("image", "images", "frames", "scene", "scenes", "video")
    }
    if "frames" in record:
        first, *rest = record["frames"]
        first.save(out / f"{name}.gif", save_all=True, append_images=rest, duration=250, loop=0)
        return [f"{name}.gif"], texts
    images = record["images"] if "images" in record else [record["image"]]
    if "regions" in record:
        images = [*images, draw_regions(record["image"], record["regions"])]
    for index, image in enumerate(images):
        image.save(out / f"{name}-{index}.png")
    return [f"{name}-{index}.png" for index in range(len(images))], texts


def as_html(files: list[str], texts: dict) -> str:
    """One record as a piece of HTML."""
    images = "".join(f'<img src="{html.escape(file)}" alt="">' for file in files)
    rows = []
    for key, value in texts.items():
        lines = value if isinstance(value, list) else [value]
        said = [
            " → ".join(str(part) for part in x.values()) if isinstance(x, dict) else str(x)
            for x in lines
        ]
        rows.append(
            f"<b>{key}</b><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in said)}</ul>"
        )
    return f"<article><div>{images}</div><div>{''.join(rows)}</div></article>"


def main() -> None:
    """Parse the command line and write the sample."""
    parser = argparse.ArgumentParser(
        prog="python -m x2vlm.stickers", description="Write a sample of the sticker world."
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="first seed, counted from the start of the split"
    )
    parser.add_argument(
        "--count", type=int, default=12, help="pictures to write; a third as many clips and pairs"
    )
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--size", type=int, default=384, help="side of the pictures in pixels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    first = split_seeds(args.split).start + args.seed
    kinds = {"scene": (make_record, args.count)}
    kinds |= {
        name: (make, max(1, args.count // 3))
        for name, make in (
            ("video", make_video_record),
            ("order", make_order_record),
            ("pair", make_pair_record),
        )
    }
    index, pieces = {}, []
    for kind, (make, count) in kinds.items():
        pieces.append(f"<h2>{kind}</h2>")
        for seed in range(first, first + count):
            try:
                files, texts = write_record(
                    make(seed, args.split, args.size), f"{kind}-{seed}", args.out
                )
            except ParameterError as error:
                parser.error(str(error))
            index[f"{kind}-{seed}"] = {"files": files, **texts}
            pieces.append(as_html(files, texts))
    (args.out / "records.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    page = (
        "<!doctype html><meta charset=utf-8><title>Sticker "
        f"world</title><style>{STYLE}</style>{''.join(pieces)}"
    )
    (args.out / "index.html").write_text(page, encoding="utf-8")
    print(f"{len(index)} records; open {args.out / 'index.html'}")


if __name__ == "__main__":
    main()
