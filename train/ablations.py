"""The ablation study at the scale of the sticker world: trains and measures every variant with some
seeds and prints one table.

    python -m train.ablations --steps 600 --seeds 0 1 2 [--only full no_box_loss] [--a.b=c ...]

`configs/sticker_ablations/full.yaml` is the run, the other files of that folder change one thing
each. What has been measured under `--out` is not measured again. A cell holds the mean over samples
and seeds, and below it the difference to `full` with its 95 % interval by paired bootstrap over the
samples of all seeds (see `train.compare`); with few seeds that says little about other seeds, so
the least and the greatest mean of a seed stand there too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from train import evaluate, pretrain
from train.compare import compare, read_scores
from x2vlm.errors import ConfigError, X2VLMError

CONFIGS = Path(__file__).parent / "configs" / "sticker_ablations"
FULL = "full"
VARIANTS = (FULL, *sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != FULL))

Scores = dict[str, list[np.ndarray]]
"""Test set -> the scores of its samples, an array a seed."""


def measured(name: str, seed: int, out: Path, steps: int, overrides: Sequence[str]) -> Path:
    """The predictions of a variant trained with a seed.

    Raises:
        X2VLMError: training or measuring failed; the reason has been printed.
    """
    folder = out / f"{name}-{seed}"
    said = folder / "predictions.jsonl"
    if said.is_file():
        return said
    layers = dict.fromkeys((FULL, name))
    run = [word for layer in layers for word in ("--config", str(CONFIGS / f"{layer}.yaml"))]
    run += [f"--output_dir={folder}", f"--max_steps={steps}", f"--seed={seed}", *overrides]
    partial = said.with_suffix(".partial")
    measure = [*run, "--checkpoint", str(folder / "final"), "--predictions", str(partial)]
    for program, arguments in ((pretrain.main, run), (evaluate.main, measure)):
        if program(arguments):
            raise ConfigError(f"{name} with seed {seed} did not finish.", "config/value")
    partial.replace(said)
    return said


def scores_of(files: Sequence[Path]) -> Scores:
    """Scores by test set, those of a file in the order of the samples' names."""
    found: Scores = {}
    for path in files:
        for test, samples in read_scores(path).items():
            found.setdefault(test, []).append(np.array([samples[s] for s in sorted(samples)]))
    return found


def table(variants: Mapping[str, Scores]) -> str:
    """Markdown: a row a variant, a column a test set; the first variant is what others are compared
    with."""
    full = next(iter(variants.values()))
    lines = ["| |" + "".join(f" {test} |" for test in full), "|---" * (1 + len(full)) + "|"]
    for name, found in variants.items():
        cells = []
        for test, seeds in found.items():
            means = [float(scores.mean()) for scores in seeds]
            cell = f"{np.mean(means):.3f} ({min(means):.3f} to {max(means):.3f})"
            if found is not full:
                told = compare(np.concatenate(full[test]), np.concatenate(seeds))
                low, high = told["interval"]
                cell += f"<br>{told['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.ablations", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--out", type=Path, default=Path("runs/sticker_ablations"))
    options, overrides = parser.parse_known_args(arguments)
    names = dict.fromkeys((FULL, *options.only))
    try:
        variants = {
            name: scores_of(
                [
                    measured(name, seed, options.out, options.steps, overrides)
                    for seed in options.seeds
                ]
            )
            for name in names
        }
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.steps} steps, seeds {', '.join(map(str, options.seeds))}\n")
    print(table(variants))
    return 0


if __name__ == "__main__":
    sys.exit(main())
