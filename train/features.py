"""What a frozen backbone makes of the photos of a run, written once, so that training starts at the
layers above it.

    python -m train.features --config train/configs/photo.yaml

For every task whose `data.photos` (or `validation`, `test`) names a `features` file that is not
there, the records are drawn and their maps (`x2vlm.modeling.feature_tower.FeatureTower.maps`) are
written as half-precision rows of a NumPy file.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from train.config import RunConfig, load_run
from train.data.photos import PhotoData, PhotoRecords
from train.launch import load_source
from train.tasks.records import PROBE_SIZE
from x2vlm.errors import X2VLMError
from x2vlm.processing import normalize, to_pixels

BATCH = 32


class _Pixels(torch.utils.data.Dataset):
    """The images of the records as uint8 (3, S, S)."""

    def __init__(self, records: PhotoRecords):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        return to_pixels(self.records[index]["image"], self.records.image_size)


@torch.inference_mode()
def write_features(tower: nn.Module, data: PhotoData, image_size: int, workers: int) -> Path:
    """Writes the file that `data.features` names, under its final name only when it is whole."""
    path = Path(data.features)
    draft = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    records = PhotoRecords(dataclasses.replace(data, features=""), image_size)
    width = sum(int(np.prod(shape)) for shape in tower.shapes)
    rows = np.lib.format.open_memmap(draft, "w+", np.float16, (len(records), width))
    started, done = time.monotonic(), 0
    for pixels in DataLoader(_Pixels(records), batch_size=BATCH, num_workers=workers):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = tower.maps(normalize(pixels))
        rows[done : done + len(maps)] = maps.half().numpy()
        done += len(maps)
        if done // BATCH % 32 == 0:
            speed = done / (time.monotonic() - started)
            print(f"{path.name}: {done:,} of {len(records):,}, {speed:.0f} a second", flush=True)
    rows.flush()
    os.replace(draft, path)
    return path


def missing(run: RunConfig, tasks: dict) -> Iterator[PhotoData]:
    """The photo data of a run whose feature files are not there yet, each file once."""
    seen = set()
    for task in tasks.values():
        for data in (task.data, *task.validation.values(), *task.test.values()):
            file = data.photos.features if data.photos else ""
            if file and file not in seen and not Path(file).is_file():
                seen.add(file)
                yield data.photos


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML of the run")
    options, overrides = parser.parse_known_args(arguments)
    try:
        run, tasks = load_run(["--config", options.config, *overrides])
        wanted = list(missing(run, tasks))
        for data in wanted:
            PhotoRecords(dataclasses.replace(data, features=""), PROBE_SIZE)
        torch.manual_seed(run.seed)  # as the run begins, where the backbone starts fresh
        model = load_source(run.model)[0].eval()
        for data in wanted:
            size = max(model.config.vision.size)
            print(f"{write_features(model.vision.tower, data, size, run.num_workers)} written")
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
