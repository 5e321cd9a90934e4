"""Measures the headline claim on the sticker world: `mini` learns Korean or Chinese by a swap of
its text encoder, without any pre-training on images in that language.

    python -m train.swap --language ko --out runs/swap_ko
    python -m train.swap --language zh --out runs/swap_zh --steps 300 --text-steps 1500

The stages are runs of `configs/swap_stickers*.yaml`: a vocabulary, a text encoder that learns the
language from text alone, then three runs on the same images and captions: the swapped model, the
one whose embeddings alone are swapped, and one that starts from nothing. All are measured on the
same test scenes, the swapped one before its training, too. An interrupted command goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from train import evaluate, pretrain
from train.config import load_run
from train.data.vocabulary import learn_vocabulary, save_tokenizer
from train.launch import load_source
from x2vlm import stickers
from x2vlm.checkpoint import save_model

CONFIGS = Path(__file__).parent / "configs"
VOCABULARY, CORPUS = 1600, 20_000
"""Tokens of `mini`'s word table, and scenes whose captions they are learnt from."""
METRICS = ("mean_recall", "text_r@1", "image_r@1")
VARIANTS = {
    "swapped": {},
    "embeddings": {"model.embeddings_only": "true"},
    "nothing": {"model.x2vlm_from": "''", "model.text_from": "''"},
}
ROWS = {
    "english": "`mini`, English captions",
    "before": "text encoder swapped, not trained",
    "swapped": "text encoder swapped",
    "embeddings": "embeddings swapped",
    "nothing": "from nothing",
}


def swap(
    language: stickers.Language, out: Path, steps: int, text_steps: int, test: int, seed: int = 42
) -> dict[str, dict[str, float]]:
    """Row of `ROWS` -> its recalls; what is done already in `out` is not done again.

    Args:
        steps: of each of the three runs on images and captions.
        text_steps: of the text encoder.
        test: scenes that are measured.
    """
    tokenizer = out / "tokenizer"
    if not tokenizer.exists():
        save_tokenizer(learn_vocabulary(_captions(language), VOCABULARY), tokenizer, max_length=64)
    model = {"seed": seed, "model.tokenizer": tokenizer}
    texts = {"max_steps": text_steps, "tasks.texts.data.stickers.language": language}
    _train("swap_stickers_text", out / "text", model | texts)
    model |= {"model.text_from": out / "text" / "final"} | _data(language, test)
    found = {"english": _measure(Path("assets/mini"), out / "english.json", _data("en", test))}
    _swapped(out / "before", model)
    found["before"] = _measure(out / "before", out / "before.json", model)
    for name, changes in VARIANTS.items():
        _train("swap_stickers", out / name, model | changes | {"max_steps": steps})
        found[name] = _measure(out / name / "final", out / f"{name}.json", model)
    return found


def _data(language: str, test: int) -> dict[str, object]:
    return {
        "tasks.pairs.data.stickers.language": language,
        "tasks.pairs.test.scenes.stickers.language": language,
        "tasks.pairs.test.scenes.stickers.count": test,
    }


def _swapped(folder: Path, changes: dict[str, object]) -> None:
    """The swapped model as it is before its training."""
    if not folder.exists():
        run, _ = load_run(_options("swap_stickers", changes))
        model, tokenizer, _ = load_source(run.model)
        save_model(model, folder, tokenizer)


def _captions(language: stickers.Language) -> Iterator[str]:
    for seed in islice(stickers.split_seeds("train"), CORPUS):
        yield from stickers.translated_captions(stickers.sample_scene(seed), language)


def _options(config: str, changes: dict[str, object]) -> list[str]:
    written = [f"--{key}={value}" for key, value in changes.items()]
    return ["--config", str(CONFIGS / f"{config}.yaml"), *written]


def _train(config: str, folder: Path, changes: dict[str, object]) -> None:
    if (folder / "final").exists():
        return
    if pretrain.main(_options(config, {"output_dir": folder, **changes})):
        raise SystemExit(f"The run in {folder} failed; its error stands above.")
    if not (folder / "final").exists():
        raise SystemExit(0)  # stopped by a signal: the same command goes on


def _measure(model: Path, out: Path, changes: dict[str, object]) -> dict[str, float]:
    if not out.exists():
        where = ["--checkpoint", str(model), "--out", str(out)]
        if evaluate.main([*_options("swap_stickers", changes), *where]):
            raise SystemExit(f"{model} cannot be measured; the error stands above.")
    results = json.loads(out.read_text("utf-8"))["results"]["pairs/scenes"]
    return {metric: results[metric] for metric in METRICS}


def table(found: dict[str, dict[str, float]]) -> str:
    lines = [f"| | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for name, values in found.items():
        lines.append(f"| {ROWS[name]} | {' | '.join(f'{values[key]:.3f}' for key in METRICS)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.swap", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--language", choices=("ko", "zh"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=300, help="of each run on images")
    parser.add_argument("--text-steps", type=int, default=1500, help="of the text encoder")
    parser.add_argument("--test", type=int, default=1000, help="test scenes (default 1000)")
    parser.add_argument("--seed", type=int, default=42)
    a = parser.parse_args(arguments)
    found = swap(a.language, a.out, a.steps, a.text_steps, a.test, a.seed)
    (a.out / "recall.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
