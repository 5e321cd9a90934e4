"""Speed and memory of training, through the real engine: python -m benchmarks.training [--steps 6]
[--presets mini base]

Prints images per second of a pre-training step (region_text on the sticker world, every loss) with
data loading on and off, peak memory of the training process, two gloo processes against one at the
same global batch, what saves memory and at which speed, how fast one core draws scenes, the memory
of a shard's index, and what is gained by keeping an image's keys and values in re-ranking. Each run
is in a process of its own; the first interval of its log, with all start-up in it, is dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import os
import socket
import tarfile
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import median_ratio, take_turns
from train import trainer
from train.config import RunConfig, build
from train.data.tars import Tar
from train.data.vocabulary import learn_vocabulary, save_tokenizer
from train.step import checkpoint_layers
from train.tasks.region_text import RegionTextTask
from x2vlm import stickers
from x2vlm.checkpoint.detect import merge_overrides
from x2vlm.modeling.build import build_model
from x2vlm.presets import PRESETS
from x2vlm.processing import Processor, load_tokenizer

BATCHES = {"mini": 16, "base": 4}
SAVINGS: dict[str, dict[str, Any]] = {
    "4 parts": {"accumulation": 4},
    "4 parts, cached": {"accumulation": 4, "gradient_cache": True},
    "checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"model": {"lora": {"rank": 16}}},
}
"""Settings that save memory, each measured against the run without it."""


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

    print(f"scenes drawn by one core: {scene_rate():.0f}/s")
    print(f"index of a shard: {index_bytes():.1f} bytes a sample")
    print(f"re-ranking with keys and values of an image kept: {rerank_saving():.1f} x", flush=True)
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
                f"{pair['rate'] / still['rate']:.2f} x"
            )
            for name, changes in SAVINGS.items():
                lean = measure(*options, loading=False, **changes)
                print(
                    f"  {name:<20} {lean['memory'] / still['memory']:8.2f} x the memory, "
                    f"{lean['rate'] / still['rate']:.2f} x the pictures/s",
                    flush=True,
                )


def index_bytes(count: int = 20_000) -> float:
    """Memory that a sample of a shard takes in a training process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard.tar")
        with tarfile.open(path, "w") as tar:
            for name in (f"{n:09}.{suffix}" for n in range(count) for suffix in ("json", "jpg")):
                tar.addfile(tarfile.TarInfo(name))
        tracemalloc.start()
        shard = Tar(path)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return held / len(shard)


def rerank_saving(texts: int = 16, rounds: int = 3) -> float:
    """How much faster the base model matches an image at 384 px with several texts when its keys
    and values are projected once, not once for each pair."""
    config = merge_overrides(PRESETS["base"], {"vision": {"image_size": 384}})
    model = build_model(config).eval()
    seen = torch.randn(1, 1 + (384 // 16) ** 2, config.vision.hidden_size)
    text, mask = torch.randn(texts, 16, config.text.hidden_size), torch.ones(texts, 16)
    with torch.no_grad():
        seconds = take_turns(
            {
                "kept": lambda: model.match_logits(model.fuse(text, mask, seen)),
                "again": lambda: model.match_logits(
                    model.fuse(text, mask, seen.expand(texts, -1, -1))
                ),
            },
            rounds,
        )
    return median_ratio(seconds["again"], seconds["kept"])


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
    **changes: Any,
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
            changes,
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
    changes: dict[str, Any],
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
            **changes,
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
    model = build_model(config)
    if run.gradient_checkpointing:
        checkpoint_layers(model)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(run, model, {"regions": task}, processor=processor)
    if sender is None:
        return
    lines = [json.loads(line) for line in Path(output, "log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["event"] == "train"][-1]
    rate = last["samples_per_second"]
    sender.send(
        {
            "rate": rate,
            "waiting": last["data_seconds"] * rate / batch,
            "memory": last["memory_gb"],
            "teraflops": last["teraflops"],
        }
    )


if __name__ == "__main__":
    main()
