"""Many images at once, in one run: `python -m benchmarks.collections [--only NAME] [--model mini]`.

Sticker scenes, one torch thread. Competitors take turns in one process, so that what else the
machine does cancels out; Ray's workers run one after the other, on a machine that should be quiet.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.inference import END_ID, PROMPT, Measurement, blip_like
from benchmarks.timing import median_ratio, take_turns
from x2vlm.collections.index import similarities
from x2vlm.collections.runner import Job, run
from x2vlm.collections.sources import Columns, open_collection
from x2vlm.collections.writer import open_writer
from x2vlm.inference.predictor import Predictor
from x2vlm.presets import BASE
from x2vlm.stickers import make_record

TEXTS = ["a red car", "the dog on the left"]
FEATURES = 100_000
CALLS: dict[str, Callable] = {
    "caption": lambda predictor, images: predictor.caption(images),
    "ground": lambda predictor, images: predictor.ground(images, TEXTS),
    "match": lambda predictor, images: predictor.match(images, TEXTS),
}


def scenes(count: int, size: int) -> list:
    return [make_record(seed, size=size)["image"] for seed in range(count)]


def batches(predictor: Predictor, count: int = 32, rounds: int = 3) -> list[Measurement]:
    """A list at once against one image after the other."""
    images, measured = scenes(count, 192), []
    for name, call in CALLS.items():
        seconds = take_turns(
            {
                "one": lambda call=call: [call(predictor, image) for image in images],
                "batch": lambda call=call: call(predictor, images),
            },
            rounds,
        )
        speed = count / float(np.median(seconds["batch"]))
        ratio = median_ratio(seconds["one"], seconds["batch"])
        start = time.process_time()
        call(predictor, images)
        cores = (time.process_time() - start) / count
        detail = f"{speed:.1f} images/s, {cores:.3f} core-seconds an image"
        measured.append(Measurement(f"{name}: batched / one by one", ratio, 2, True, detail))
    return measured


def peer(predictor: Predictor, count: int = 8, rounds: int = 2) -> list[Measurement]:
    """Captions against transformers' BLIP-base (random weights): images a second times parameters,
    so work a second of models of different size."""
    blip, images = blip_like(BASE), scenes(count, 192)
    pixels = torch.randn(count, 3, BASE.vision.image_size, BASE.vision.image_size)
    ids = torch.tensor([[*PROMPT, END_ID]] * count)
    length = {"num_beams": 3, "max_new_tokens": 20, "do_sample": False}

    def write() -> None:
        with torch.no_grad():
            blip.generate(pixel_values=pixels, input_ids=ids, **length)

    ours = {"ours": lambda: predictor.caption(images, max_new_tokens=20), "peer": write}
    seconds = take_turns(ours, rounds)
    theirs = sum(parameter.numel() for parameter in blip.parameters())
    ratio = median_ratio(seconds["peer"], seconds["ours"])
    detail = f"{ratio:.1f} times the images/s of BLIP-base, {theirs / 1e6:.0f} million parameters"
    per_parameter = ratio * predictor.info.parameters / theirs
    return [Measurement("caption per parameter / BLIP-base", per_parameter, 1, True, detail)]


def workers(predictor: Predictor, model: str, count: int = 800) -> list[Measurement]:
    """Ray with two workers against one: items a second in the second half of the images, when
    readers and workers have started."""
    from x2vlm.collections import ray_engine

    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(scenes(count, 192)):
            image.save(Path(folder) / f"{number:05}.png")
        for some in (1, 2):
            moments: list[float] = []
            job, columns = Job("match", tuple(TEXTS)), Columns()
            with open_writer(Path(folder) / f"{some}.jsonl", {}) as writer:
                ray_engine.run(
                    job,
                    {"name_or_path": model, "device": "cpu"},
                    [folder],
                    columns,
                    False,
                    writer,
                    lambda items, errors, to=moments: to.extend([time.perf_counter()] * items),
                    some,
                )
            middle, end = moments[count // 2], moments[-1]
            speeds.append(sum(moment > middle for moment in moments) / (end - middle))
    detail = f"match, {speeds[0]:.1f} and {speeds[1]:.1f} images/s"
    return [Measurement("Ray: two workers / one", speeds[1] / speeds[0], 1.7, True, detail)]


def search(predictor: Predictor, rounds: int = 9) -> list[Measurement]:
    """Cosines of one text with many features in a memory-mapped file, and the best of them."""
    width = predictor.feature_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.f32"
        rng = np.random.default_rng(0)
        rng.standard_normal((FEATURES, width), dtype=np.float32).tofile(path)
        features = np.memmap(path, np.float32, "r").reshape(-1, width)
        text = features[0].copy()
        found = lambda: np.argpartition(-similarities(features, text), 31)[:32]  # noqa: E731
        seconds = take_turns({"search": found}, rounds)["search"]
    milliseconds = 1000 * float(np.median(seconds))
    detail = f"{FEATURES:,} features of {width}"
    return [Measurement("search, milliseconds", milliseconds, 50, False, detail)]


def memory(predictor: Predictor, count: int = 10_000) -> list[Measurement]:
    """Memory of the process after all images against that after a tenth of them."""
    marks, process = [], psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(scenes(100, 64)):
            image.save(Path(folder) / f"{number:03}.png")
        table = Path(folder) / "list.csv"
        rows = [f"{number % 100:03}.png" for number in range(count)]
        table.write_text("\n".join(["image", *rows]) + "\n")

        def look(items: int, errors: int) -> None:
            if len(writer.done) in (count // 10, count):
                gc.collect()
                marks.append(process.memory_info().rss)

        with open_writer(Path(folder) / "out.jsonl", {}) as writer:
            run(Job("match", ("dog",)), predictor, open_collection([str(table)]), writer, look)
    first, last = marks[0] / 2**20, marks[-1] / 2**20
    detail = f"{first:.0f} MiB after {count // 10:,} images, {last:.0f} after {count:,}"
    return [Measurement("memory after all / after a tenth", last / first, 1.1, False, detail)]


MEASURES = {
    "batches": batches,
    "peer": peer,
    "workers": workers,
    "search": search,
    "memory": memory,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collections", description=__doc__)
    parser.add_argument("--only", choices=list(MEASURES), help="one measure instead of all")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    predictor = Predictor.from_pretrained(options.model, "cpu")
    for name, measure in MEASURES.items():
        if options.only not in (None, name):
            continue
        more = {"model": options.model} if name == "workers" else {}
        for m in measure(predictor, **more):
            if options.json:
                print(json.dumps(dataclasses.asdict(m) | {"passed": m.passed}), flush=True)
                continue
            sign, word = (">=" if m.more_is_better else "<="), ("pass" if m.passed else "MISS")
            print(
                f"{m.name:36} {m.ratio:7.2f}   bar {sign} {m.bar:<4} {word}   {m.detail}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
