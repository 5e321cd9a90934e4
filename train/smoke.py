"""The whole way to `mini` at toy scale, in minutes on two cores: world, vocabulary, shards,
pre-training, joint fine-tuning, evaluation, checkpoint.

    python -m train.smoke            # make train-mini-smoke

It runs the real configurations with less of everything. The model it leaves behind has learnt
nothing; that each stage hands the next one what it needs is the point.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from train import evaluate, finetune, pretrain
from train.data.shards import write_shards
from train.data.stickers import StickerData
from train.data.vocabulary import learn_vocabulary, save_tokenizer
from train.strict_yaml import read_yaml
from x2vlm.modeling.build import load_model
from x2vlm.stickers import corpus

CONFIGS = Path(__file__).parent / "configs"
TINY_MODEL = {
    "vision": {"image_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 2},
    "text": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 64},
    "fusion": {"num_layers": 2, "num_heads": 2, "intermediate_size": 64},
    "num_frames": 2,
}


def smoke(folder: Path, steps: int, samples: int) -> dict[str, Any]:
    """Runs every stage below `folder`; returns the numbers of the evaluation.

    Raises:
        RuntimeError: a stage ended with an error, or did not leave what it should.
    """
    words = learn_vocabulary(corpus(4000), 1600)
    save_tokenizer(words, folder / "tokenizer", max_length=64)
    shards = write_shards(
        StickerData(count=64), TINY_MODEL["vision"]["image_size"], folder / "shards", per_shard=32
    )

    first = small(read_yaml(CONFIGS / "mini_pretrain.yaml"), folder / "pretrain", steps)
    first["model"]["tokenizer"] = str(folder / "tokenizer")
    first["model"]["overrides"] |= TINY_MODEL
    name = next(iter(first["tasks"]))
    first["tasks"][name]["data"] = {"files": [str(path) for path in shards], "format": "record"}
    run(pretrain.main, ["--config", written(first, folder / "pretrain.yaml")])

    second = small(read_yaml(CONFIGS / "mini.yaml"), folder / "joint", steps)
    second["model"] |= {
        "init_from": str(folder / "pretrain" / "final"),
        "tokenizer": "",
        "overrides": TINY_MODEL,
    }
    config = written(second, folder / "joint.yaml")
    run(finetune.main, ["--config", config])
    run(
        evaluate.main,
        ["--config", config, "--limit", str(samples), "--out", str(folder / "results.json")],
    )
    load_model(folder / "joint" / "final")
    return read_yaml(folder / "results.json")["results"]


def small(values: dict[str, Any], output: Path, steps: int) -> dict[str, Any]:
    """A run with few steps and tiny batches, its tasks unchanged otherwise."""
    for task in values["tasks"].values():
        task |= {"batch_size": 4, "from_step": 0}
    changes = {
        "output_dir": str(output),
        "max_steps": steps,
        "precision": "fp32",
        "num_workers": 0,
        "device": "cpu",
    }
    return {**values, **changes, "log": {"every": steps, "trackers": []}}


def written(values: dict[str, Any], path: Path) -> str:
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return str(path)


def run(program, arguments: list[str]) -> None:
    started = time.monotonic()
    if program(arguments) != 0:
        raise RuntimeError(f"{program.__module__} failed")
    print(f"== {program.__module__}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.smoke", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8, help="of each test set")
    parser.add_argument("--out", help="folder to keep; default: one that is deleted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = smoke(folder, arguments.steps, arguments.samples)
    print(f"{len(results)} test sets measured; the pipeline works.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
