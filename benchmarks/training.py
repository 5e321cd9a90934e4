"""Speed and memory of training, through the real engine: python -m benchmarks.training [--steps 6]
[--presets mini base]

Prints images per second of a pre-training step (region_text on the sticker world, every loss) with
data loading on and off, peak memory of the training process, two gloo processes against one at the
same global batch, and how fast one core draws scenes. Each measurement runs in a process of its
own; the first interval of its log, with all start-up in it, is dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from train import trainer
from train.config import RunConfig, build
from train.data.vocabulary import learn_vocabulary, save_tokenizer
from train.tasks.region_text import RegionTextTask
from x2vlm import stickers
from x2vlm.modeling.build import build_model
from x2vlm.presets import PRESETS
from x2vlm.processing import Processor, load_tokenizer

BATCHES = {"mini": 16, "base": 4}


@dataclass(kw_only=True)
class RepeatedBatch(RegionTextTask):
    """The first batch again and again: what a step costs when data cost nothing."""

    def sample(self, index, rng):
        return None if hasattr(self, "batch") else super().sample(index, rng)

    def collate(self, samples):
        if not hasattr(self, "batch"):
            self.batch = super().collate(samples)
        return self.batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="steps of the measured interval")
    parser.add_argument("--presets", nargs="+", default=["mini", "base"], choices=sorted(BATCHES))
    parser.add_argument("--batch-size", type=int, help="pictures a step; default: " + str(BATCHES))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    arguments = parser.parse_args()

    print(f"scenes drawn by one core: {scene_rate():.0f}/s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(
            learn_vocabulary(stickers.corpus(2000), 1600), Path(folder, "tokenizer"), max_length=64
        )
        for preset in arguments.presets:
            batch = arguments.batch_size or BATCHES[preset]
            options = (Path(folder), preset, batch, arguments.steps, arguments.precision)
            still, moving = measure(*options, loading=False), measure(*options, loading=True)
            pair = measure(*options, loading=False, processes=2)
            print(
                f"{preset}, {batch} pictures a step, {arguments.precision}, peak memory "
                f"{moving['memory']:.2f} GB"
            )
            print(f"  without data loading {still['rate']:8.2f} pictures/s")
            print(
                f"  with data loading    {moving['rate']:8.2f} pictures/s, "
                f"{moving['rate'] / still['rate']:.2f} x, {moving['waiting']:.0%} of the time "
                "spent waiting for data"
            )
            print(
                f"  two gloo processes   {pair['rate']:8.2f} pictures/s, "
                f"{pair['rate'] / still['rate']:.2f} x",
                flush=True,
            )


def scene_rate(count: int = 100, size: int = PRESETS["mini"].vision.image_size) -> float:
    """Pictures with all their annotation per second, after a warm-up."""
    first = stickers.split_seeds("train").start
    for seed in range(first, first + 10):
        stickers.make_record(seed, size=size)
    started = time.perf_counter()
    for seed in range(first + 10, first + 10 + count):
        stickers.make_record(seed, size=size)
    return count / (time.perf_counter() - started)


def measure(
    folder: Path,
    preset: str,
    batch: int,
    steps: int,
    precision: str,
    loading: bool,
    processes: int = 1,
) -> dict[str, float]:
    """One run in processes of its own: images per second, share of time spent waiting for data,
    peak memory in GB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    output = tempfile.mkdtemp(dir=folder)
    running = []
    for rank in range(processes):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        threads = max(1, (os.cpu_count() or 1) // processes)
        settings = (
            folder,
            output,
            preset,
            batch,
            steps,
            precision,
            loading,
            threads,
            environment,
            sender if rank == 0 else None,
        )
        running.append(context.Process(target=_run, args=settings))
        running[-1].start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit("A measurement failed; its error stands above.") from None
    finally:
        for process in running:
            process.join()


def _run(
    folder,
    output,
    preset,
    batch,
    steps,
    precision,
    loading,
    threads,
    environment: dict[str, str],
    sender: Any,
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(threads)
    config = PRESETS[preset]
    run = build(
        RunConfig,
        {
            "output_dir": output,
            "max_steps": 2 * steps,
            "tasks": {"regions": {}},
            "optimizer": {"lr": 1e-4},
            "precision": precision,
            "device": "cpu" if environment else "auto",  # two processes share no GPU
            "num_workers": 1 if loading else 0,
            "log": {"every": steps, "trackers": []},
            "checkpoint": {"every": 2 * steps},
        },
    )
    kind = RegionTextTask if loading else RepeatedBatch
    task = build(
        kind,
        {
            "batch_size": batch,
            "losses": dict.fromkeys(kind.all_losses, 1),
            "max_tokens": 48,
            "data": {"stickers": {"kind": "scene"}},
        },
    )
    processor = Processor(config, load_tokenizer(folder / "tokenizer"))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(run, build_model(config), {"regions": task}, processor=processor)
    if sender is None:
        return
    lines = [json.loads(line) for line in Path(output, "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "train"][-1]
    rate = last["samples_per_second"]
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    sender.send(
        {"rate": rate, "waiting": last["data_seconds"] * rate / batch, "memory": memory / 1e9}
    )


if __name__ == "__main__":
    main()
