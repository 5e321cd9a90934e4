"""Is one model better than another? Paired bootstrap over the samples of two prediction files.

    python -m train.compare before.jsonl after.jsonl

The files come from `python -m train.evaluate --predictions`. For every test set whose samples have
a score of their own (accuracy, boxes, recall@1), it tells both means, the difference with its 95 %
interval, and how often a resampled difference is not above 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from train.prepare.common import read_json_lines
from x2vlm.errors import DataError, X2VLMError

DRAWS = 10_000


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Test set -> sample -> score. Raises `DataError`."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    try:
        for line in read_json_lines(path):
            if "score" in line:
                found[line["test"]][str(line["sample"])] = float(line["score"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no file of `train.evaluate --predictions` ({error}).", "data/format"
        ) from None
    return found


def compare(first: np.ndarray, second: np.ndarray, draws: int = DRAWS, seed: int = 0) -> dict:
    """Means, difference, 95 % interval and share of draws in which the second is not better, of
    paired scores float (N,)."""
    differences = second - first
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.choice(differences, len(differences)).mean() for _ in range(draws)])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "samples": len(first),
        "first": float(first.mean()),
        "second": float(second.mean()),
        "difference": float(differences.mean()),
        "interval": [float(low), float(high)],
        "not_better": float((drawn <= 0).mean()),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.compare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    try:
        first, second = read_scores(options.first), read_scores(options.second)
        common = {
            test: samples
            for test in first
            if (samples := sorted(first[test].keys() & second.get(test, {}).keys()))
        }
        if not common:
            raise DataError("The two files have no scored sample in common.", "data/empty")
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    results = {
        test: compare(*(np.array([file[test][s] for s in samples]) for file in (first, second)))
        for test, samples in common.items()
    }
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
