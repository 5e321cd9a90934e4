"""Machine boxes on captioned photos by a torchvision detector of COCO's classes.

    python -m train.prepare.photo_boxes --flickr8k ../shared/data/flickr8k --out boxes.jsonl

Writes a line for each photo, train before val in the order of the shards, as `train.prepare.photo
--boxes` reads them: `[[x0, y0, x1, y1, score, class number], ...]` in pixels of a square of 416.
The detector's weights are downloaded, or taken from `--weights`, a file of its state dict.
"""

from __future__ import annotations

import argparse
import io
import sys
import urllib.error
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.functional import pil_to_tensor

from train.prepare.common import write_json_lines
from train.prepare.photo import read_shards
from train.prepare.photo_words import COCO_NAMES
from x2vlm.errors import DataError, X2VLMError

DETECTOR = "fasterrcnn_mobilenet_v3_large_320_fpn"
SIDE = 416
MIN_SCORE = 0.3


def load_detector(name: str, weights: Path | None) -> tuple[nn.Module, list[int | None]]:
    """The detector, and for each of its classes the number of that class in `COCO_NAMES`.

    Raises:
        DataError: its weights can neither be downloaded nor read (`data/missing`).
    """
    published = get_model_weights(name).DEFAULT
    try:
        if weights is None:
            model = get_model(name, weights=published)
        else:
            model = get_model(name, weights=None, weights_backbone=None)
            model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise DataError(
            f"The weights of {name} cannot be had: {error}. Download {published.url} where the "
            "network allows it, and name the file with --weights.",
            "data/missing",
        ) from None
    numbers = {name: number for number, name in enumerate(COCO_NAMES)}
    return model.eval(), [numbers.get(kind) for kind in published.meta["categories"]]


@torch.inference_mode()
def detect(
    model: nn.Module, classes: list[int | None], jpegs: Iterable[bytes]
) -> Iterator[list[list[float]]]:
    """The rows of each photo, the surest first."""
    for jpeg in jpegs:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((SIDE, SIDE))
        (found,) = model([pil_to_tensor(image) / 255])
        rows = zip(found["boxes"], found["scores"], found["labels"], strict=True)
        yield [
            [*(round(edge) for edge in box.tolist()), round(score.item(), 2), classes[label]]
            for box, score, label in rows
            if score >= MIN_SCORE and classes[label] is not None
        ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flickr8k", type=Path, required=True, help="train-*.tar and val-*.tar")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to write")
    parser.add_argument("--detector", default=DETECTOR, help="torchvision name")
    parser.add_argument("--weights", type=Path, help="file of the detector's weights")
    options = parser.parse_args(arguments)
    problems: Counter[str] = Counter()
    shards = [
        path
        for split in ("train", "val")
        for path in sorted(options.flickr8k.glob(f"{split}-*.tar"))
    ]
    try:
        if not shards:
            raise DataError(
                f"{options.flickr8k} holds no train-*.tar or val-*.tar.", "data/missing"
            )
        model, classes = load_detector(options.detector, options.weights)
        jpegs = (jpeg for _, jpeg, _ in read_shards(shards, problems))
        write_json_lines(options.out, detect(model, classes, jpegs))
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    for problem, count in problems.items():
        print(f"{count:,} left out: {problem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
