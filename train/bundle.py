"""From a finished run to the folder that `Predictor.from_pretrained` loads: half-precision weights,
settings for their use, and what the training images were like.

    python -m train.bundle --config train/configs/mini.yaml --out assets/mini

The weights are those that validation chose, as for `train.evaluate`, unless `--model` names others.
What a Predictor must know beside the weights is chosen on the `validation` data of the run's tasks,
never on `test`: of its `matching` task the match probabilities from which a phrase counts as found
or absent, of its `grounding` task the heat maps that point best (`x2vlm.inspection.calibrate`), of
its `question_answering` task the answers. What is chosen by hand (prompt, lengths, note) stands in
`predictor.json` of the folder and stays.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from train.config import load_run
from train.data.records import DataConfig
from train.evaluate import chosen_weights
from train.tasks.grounding import Grounding
from train.tasks.matching import Matching
from train.tasks.question_answering import QuestionAnswering
from train.tasks.records import RecordTask
from x2vlm.checkpoint import save_model
from x2vlm.errors import ConfigError, X2VLMError
from x2vlm.inference.domain import Domain
from x2vlm.inference.predictor import Predictor
from x2vlm.inspection.calibrate import calibrate as calibrate_maps
from x2vlm.inspection.truth import truth_of
from x2vlm.modeling.build import load_model
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.options import MapChoices
from x2vlm.processing import Processor
from x2vlm.settings import Settings

MISTAKES = 0.05
"""Share of the true phrases that may be called absent, and of the absent ones that may be called
found."""
DOMAIN_IMAGES = 3000
"""Training images that the domain is described by; a third as many validation images set its
limit."""
OUTSIDE = 0.01
"""Share of the validation images that may lie outside the domain."""
CALIBRATION_IMAGES = 200
"""Of each of the `grounding` task's validation sets."""


def first_of(tasks: Mapping[str, RecordTask], kind: type) -> RecordTask:
    """The first task of a kind, one with validation data before others.

    Raises:
        ConfigError: the run has none (`config/key`).
    """
    found = [task for task in tasks.values() if isinstance(task, kind)]
    if not found:
        raise ConfigError(
            f"The run has no {kind.__name__} task, whose validation data the settings are chosen "
            "on.",
            "config/key",
        )
    return max(found, key=lambda task: bool(task.validation))


@torch.no_grad()
def calibrate(model: X2VLM, processor: Processor, tasks: Mapping[str, RecordTask]) -> dict:
    """Measured settings: `absent`, `present`, `answers`.

    `absent` lies below all but 5 % of the true phrases and `present` above all but 5 % of the
    absent ones; where the two kinds do not overlap, the gap between them is the range of doubt.
    """
    matching = first_of(tasks, Matching)
    matching.prepare_texts(processor)
    scored = [
        matching.scores(model, matching.open_test(data)) for data in matching.validation.values()
    ]
    odds, labels = (np.concatenate(parts) for parts in zip(*scored, strict=True))
    probability = 1 / (1 + np.exp(-odds))
    edges = (
        np.quantile(probability[labels == 1], MISTAKES),
        np.quantile(probability[labels == 0], 1 - MISTAKES),
    )
    return {
        "absent": round(float(min(edges)), 3),
        "present": round(float(max(edges)), 3),
        "answers": tuple(first_of(tasks, QuestionAnswering).candidates()),
    }


def best_maps(out: Path, grounding: Grounding, processor: Processor) -> MapChoices:
    """The heat maps of the model in a folder that point best on a task's validation images."""
    grounding.prepare_texts(processor)
    truths = []
    for name, data in grounding.validation.items():
        records = grounding.open_test(_as_images(data), CALIBRATION_IMAGES)
        truths += [truth_of(f"{name} {i}", records[i]) for i in range(len(records))]
    return calibrate_maps(Predictor.from_pretrained(out), truths, Settings.read(out).maps).choices


@torch.no_grad()
def describe_domain(model: X2VLM, processor: Processor, tasks: Mapping[str, RecordTask]) -> Domain:
    """The pooled tokens of images that tasks train on, and as the limit those of validation images
    of the `matching` task."""
    trained = [task for task in tasks.values() if task.loss_weights and _plain(task.data)]
    each = DOMAIN_IMAGES // len(trained)
    features = [_pooled(model, processor, task, task.data, each) for task in trained]
    matching = first_of(tasks, Matching)
    held_out = [
        _pooled(model, processor, matching, data, DOMAIN_IMAGES // 3)
        for data in matching.validation.values()
    ]
    return Domain.fit(torch.cat(features), torch.cat(held_out), OUTSIDE)


def _plain(data: DataConfig) -> bool:
    """Images as people give them: no videos, no pairs, no mosaics."""
    kind = data.stickers.kind if data.stickers else data.photos.kind if data.photos else "photos"
    return kind in ("scene", "photos", "nouns")


def _as_images(data: DataConfig) -> DataConfig:
    """The data without the features of their images."""
    if data.photos is None:
        return data
    return dataclasses.replace(data, photos=dataclasses.replace(data.photos, features=""))


def _pooled(model, processor: Processor, task: RecordTask, data: DataConfig, count: int) -> Tensor:
    """float[N, D] of `count` images, evenly spread over the data."""
    task.prepare_texts(processor)
    records = task.open_test(_as_images(data))
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    groups = [chosen[start : start + 32] for start in range(0, len(chosen), 32)]
    return torch.cat([task.see(model, [records[int(i)] for i in g])[:, 0] for g in groups])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", required=True, help="YAML of the run")
    parser.add_argument("--model", help="model folder; default: the run's best weights")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--domain-only", action="store_true", help="write what the training images are like alone"
    )
    options, overrides = parser.parse_known_args(arguments)
    out = Path(options.out)
    try:
        run, tasks = load_run(["--config", options.config, *overrides])
        for task in tasks.values():
            task.open_data(map(_as_images, (task.data, *task.validation.values())))
        loaded = load_model(options.model or chosen_weights(Path(run.output_dir)))
        processor = Processor.from_pretrained(loaded.tokenizer_dir, loaded.config)
        if not options.domain_only:
            measured = calibrate(loaded.model, processor, tasks)
            settings = dataclasses.replace(Settings.read(out), **measured)
            card = out / "README.md"
            kept = card.read_text(encoding="utf-8") if card.is_file() else None
            save_model(loaded.model, out, processor.tokenizer, kept, torch.float16, settings)
            maps = best_maps(out, first_of(tasks, Grounding), processor)
            settings = dataclasses.replace(settings, maps=maps)
            settings.write(out)
            print(f"absent below {settings.absent}, found from {settings.present}, {maps}")
        describe_domain(loaded.model, processor, tasks).write(out)
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{out} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
