"""Fine-tunes a model on people's own images for one task, in one command.

    python -m train.tune pairs.csv --task caption --model photo --out runs/mine
    python -m train.tune photos/ --task retrieval --model x2vlm_base_1b --out runs/mine --epochs 5

The data are read and checked first (`train.prepare.own`), then the model is loaded. It is measured
on the images held out for testing, trained until the validation loss no longer falls, and measured
again. OUT then holds `data/`, the run as `run.yaml` for `python -m train.finetune` and `model/`
with weights, tokenizer, settings and a card. The same command goes on with an interrupted run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from train import trainer
from train.config import load_run
from train.evaluate import evaluate
from train.launch import load_source
from train.lora import merged
from train.prepare.own import FORMATS, OwnData, add_arguments, own_data
from train.stop import StopSignal
from x2vlm import hub
from x2vlm.checkpoint import save_model
from x2vlm.checkpoint.loading import read_config
from x2vlm.errors import X2VLMError
from x2vlm.processing import Processor
from x2vlm.settings import Settings

PRETRAINED_HEADS = ("contrastive", "matching", "box", "masked_lm")
RECIPES: dict[str, dict[str, Any]] = {
    "caption": {
        "type": "captioning",
        "losses": {"caption_loss": 1},
        "augmentation": "train",
        "captions_per_image": 2,
    },
    "retrieval": {
        "type": "retrieval",
        "losses": {"contrastive_loss": 1, "matching_loss": 1},
        "augmentation": "train",
    },
    "ground": {
        "type": "grounding",
        "losses": {"box_l1_loss": 1, "box_giou_loss": 1},
        "augmentation": "train",
        "phrases_per_image": 2,
    },
    "ask": {
        "type": "question_answering",
        "losses": {"answer_loss": 1},
        "augmentation": "train_no_flip",
    },
}
"""Task -> its block in the run."""
CHOSEN_BY = {
    "caption": "caption_loss",
    "retrieval": "contrastive_loss",
    "ground": "box_giou_loss",
    "ask": "answer_loss",
}
"""Task -> the validation loss whose lowest value chooses the weights."""
REPORTED = {
    "caption": ("cider_d", "bleu_4", "rouge_l"),
    "retrieval": ("mean_recall", "text_r@1", "image_r@1"),
    "ground": ("accuracy",),
    "ask": ("accuracy",),
}
"""Task -> the metrics of the held-out images that the card tells; the first one decides whether the
model got better."""
PIECES_A_WORD = 2.0
"""Texts that a vocabulary cuts finer than this are of a language that it does not know."""
CARD = """---
library_name: x2vlm
pipeline_tag: image-text-to-text
---
# {name}

`{base}`, fine-tuned for one task, **{task}**, on images and texts of its owner.

{results}

Measured on {test} images that were neither trained on nor used to choose the weights.

| | |
|---|---|
| data | {data}: {counts} |
| command | `{command}` |
| steps | {steps} of {batch} images, learning rate {lr:g}, weights by the lowest validation {loss} |
| time | {minutes:.0f} minutes on {device} |

What the data were like:

{summary}

The other tasks of the model share weights with this one; how well it still does them was not
measured. The licences of `{base}` and of the data apply.
"""


def run_of(options: argparse.Namespace, data: OwnData, source: Path) -> dict[str, Any]:
    """The run, in the words of a YAML file; sizes follow from the model and the data."""
    small = options.model in hub.BUNDLED
    folder = source if source.is_dir() else source.parent
    config = read_config(folder / "config.json") if (folder / "config.json").is_file() else None
    lr = options.lr or (1e-4 if small or options.lora else 1e-5)
    batch = min(options.batch_size, data.counts["train"])
    files = {"format": FORMATS[options.task], "media": data.media}
    parts = {
        part: {**files, "files": [str(data.out / f"{part}.jsonl")]}
        for part in ("train", "val", "test")
    }
    task = {**RECIPES[options.task], "batch_size": batch, "data": parts["train"]}
    task |= {"validation": {"val": parts["val"]}, "test": {"test": parts["test"]}}
    if options.task == "retrieval":
        task["reranked"] = 0 if small else 128  # a small matching head orders worse than features
    if options.task == "caption":
        task["ranked"] = config is not None and "matching" in config.heads
    if options.task == "ask":
        task["answer_list"] = str(data.out / "answers.json")
    model: dict[str, Any] = {"init_from": options.model}
    if options.lora:
        model["lora"] = {"rank": options.lora, "alpha": 2.0 * options.lora}
    if config and config.vision.tower == "timm":
        model["freeze"] = ["vision.tower.backbone."]
    if config is None and options.task == "ask":
        model["overrides"] = {"heads": [*PRETRAINED_HEADS, "answer_decoder"]}
    every = math.ceil(data.counts["train"] / batch)
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(options.out),
        "epochs": options.epochs,
        "precision": "bf16" if on_gpu else "fp32",
        "num_workers": 4 if on_gpu else 1,
        "model": model,
        "optimizer": {"lr": lr, "warmup": 0.1, "lr_mult": 2.0},
        "evaluate": {
            "every": every,
            "metric": f"{options.task}/val_{CHOSEN_BY[options.task]}",
            "goal": "min",
            "patience": options.patience,
        },
        "checkpoint": {"every": 100 * every, "keep": 1},
        "tasks": {options.task: task},
    }


def write_answers(data: OwnData, base: tuple[str, ...]) -> list[str]:
    """The answers that questions are ranked over: those of the training images, the most frequent
    first, then those that the model knew."""
    count: dict[str, int] = {}
    for line in (data.out / "train.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(line)["answer"]
        for text in [answer] if isinstance(answer, str) else answer:
            count[text] = count.get(text, 0) + 1
    answers = list(dict.fromkeys([*sorted(count, key=count.get, reverse=True), *base]))
    (data.out / "answers.json").write_text(json.dumps(answers, ensure_ascii=False), "utf-8")
    return answers


def language_note(tokenizer: Any, texts: list[str]) -> str:
    """A sentence when the vocabulary does not fit the texts, else ""."""
    texts = texts[:2000]
    pieces = [piece for text in texts for piece in tokenizer.tokenize(text)]
    unknown = pieces.count(tokenizer.unk_token) / max(1, len(pieces))
    each = len(pieces) / max(1, sum(len(text.split()) for text in texts))
    if unknown < 0.01 and each < PIECES_A_WORD:
        return ""
    return (
        f"note: the model's vocabulary cuts these texts into {each:.1f} pieces a word, "
        f"{unknown:.0%} of them unknown: it was made for another language. A model with XLM-R's "
        "vocabulary (a CCLM checkpoint) reads a hundred languages."
    )


def texts_of(data: OwnData) -> list[str]:
    """Captions, phrases or questions of the training images."""
    found = []
    for line in (data.out / "train.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        found += entry.get("captions") or [element["caption"] for element in entry.get("elems", ())]
        found += [entry["question"]] if "question" in entry else []
    return found


def tune(options: argparse.Namespace, command: str, stop: StopSignal) -> int:
    """The whole way; the exit code. Raises `X2VLMError`."""
    started, name = time.monotonic(), options.task
    data = own_data(options, options.out / "data")
    source = hub.resolve(options.model)
    settings = Settings.read(source if source.is_dir() else source.parent)
    if name == "ask":
        answers = write_answers(data, settings.answers)
        settings = dataclasses.replace(settings, answers=tuple(answers))
    path = options.out / "run.yaml"
    values = run_of(options, data, source)
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
    run, tasks = load_run(["--config", str(path)])
    tasks[name].open_data()
    torch.manual_seed(run.seed)
    model, tokenizer, new = load_source(run.model)
    if note := language_note(tokenizer, texts_of(data)):
        print(note)
    processor = Processor(model.config, tokenizer)
    print("Before training:")
    before = measure(tasks, model, processor, name)
    steps = trainer.train(
        run,
        model,
        tasks,
        processor=processor,
        new_parameters=new,
        export=lambda model, folder: None,  # the chosen weights stay in `model`
        stop=stop,
    )
    if stop.requested:
        return 0
    model = merged(model)
    print("After training:")
    after = measure(tasks, model, processor, name)
    rows = [f"| {key} | {before[key]:.3f} | {after[key]:.3f} |" for key in REPORTED[name]]
    minutes = (time.monotonic() - started) / 60
    card = write_card(options, data, rows, command, steps, run.optimizer.lr, minutes)
    dtype = torch.float16 if options.model in hub.BUNDLED else None
    save_model(model.cpu(), options.out / "model", tokenizer, card, dtype, settings)
    first = REPORTED[name][0]
    said = "better than before" if after[first] > before[first] else "NOT better than before"
    print("\n".join(rows))
    print(f"{first} on the {data.counts['test']} held-out images is {said}.")
    print(f"The model is {options.out / 'model'}.")
    return 0


def write_card(
    options: argparse.Namespace,
    data: OwnData,
    rows: list[str],
    command: str,
    steps: int,
    lr: float,
    minutes: float,
) -> str:
    """The model's README.md, with what was measured before and after."""
    on_gpu = torch.cuda.is_available()
    return CARD.format(
        name=options.out.name,
        base=options.model,
        task=options.task,
        results="\n".join(["| | before | after |", "|---|---|---|", *rows]),
        test=data.counts["test"],
        data=options.data.name,
        counts=", ".join(f"{count} {part}" for part, count in data.counts.items()),
        command=command,
        steps=steps,
        batch=min(options.batch_size, data.counts["train"]),
        lr=lr,
        loss=CHOSEN_BY[options.task],
        minutes=minutes,
        device=torch.cuda.get_device_name() if on_gpu else "CPU",
        summary="\n".join(f"* {line}" for line in data.lines),
    )


def measure(tasks, model, processor: Processor, name: str) -> dict[str, float]:
    """Metrics on the held-out images."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return evaluate(tasks, model.to(device).eval(), processor)[f"{name}/test"]


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="x2vlm tune", description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--model", default="photo", help="name, folder or file (default photo)")
    parser.add_argument("--out", type=Path, default=Path("runs/tuned"), help="folder to write")
    parser.add_argument("--epochs", type=float, default=10, help="at most (default 10)")
    parser.add_argument(
        "--patience", type=int, default=3, help="epochs without a better one (default 3)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images a step (default 16)")
    parser.add_argument("--lr", type=float, help="peak learning rate (default: by the model)")
    parser.add_argument(
        "--lora",
        type=int,
        nargs="?",
        const=16,
        metavar="RANK",
        help="train adapters of this rank (16) instead of the layers' weights: less memory",
    )
    options = parser.parse_args(given)
    stop = StopSignal().install()
    try:
        return tune(options, f"x2vlm tune {shlex.join(given)}", stop)
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
