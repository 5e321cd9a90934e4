"""How long a user of `mini` waits: `python -m benchmarks.latency [--model mini] [--rounds 60]
[--threads 2]`.

One round is an image that was never seen, encoded, and one answer to a question about it, as
`Predictor.answer` does both.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from benchmarks.timing import take_turns
from x2vlm.inference.predictor import Predictor
from x2vlm.stickers import make_record, split_seeds

BAR = 150.0
"""Milliseconds, the median on two CPU cores."""


def answer_milliseconds(predictor: Predictor, rounds: int) -> list[float]:
    """Sorted milliseconds of `rounds` images with a question each; one more before them warms
    up."""
    first = split_seeds("test").start
    # Scenes are drawn outside the time that is measured.
    records = (make_record(seed, "test") for seed in range(first, first + rounds + 1))
    asked = [(record["image"], record["questions"][0]["question"]) for record in records]
    following = iter(asked)
    seconds = take_turns({"answer": lambda: predictor.answer(*next(following))}, rounds)["answer"]
    return sorted(1000 * value for value in seconds)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--model", default="mini", help="name or folder")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = answer_milliseconds(
        Predictor.from_pretrained(options.model, device="cpu"), options.rounds
    )
    median, slow = statistics.median(found), found[int(0.95 * (len(found) - 1))]
    print(
        f"a picture encoded and one answer: median {median:.0f} ms, 95 % within {slow:.0f} ms, "
        f"bar {BAR:.0f} ms: {'pass' if median <= BAR else 'MISS'}   ({options.threads} threads, "
        f"{options.rounds} pictures)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
