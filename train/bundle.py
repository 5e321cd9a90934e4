"""From a finished run to the folder that `Predictor.from_pretrained` loads: half-precision weights
and settings for their use.

    python -m train.bundle --run runs/mini --out assets/mini

What a Predictor must know beside the weights is chosen on the `val` split of the sticker world,
never on `test`: the match probabilities from which a phrase counts as found or absent, and the
fusion layer whose maps point best.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from train.data.records import DataConfig
from train.data.stickers import StickerData
from train.tasks.grounding import Grounding
from train.tasks.matching import Matching
from x2vlm.checkpoint import load_model, save_model
from x2vlm.errors import X2VLMError
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import Processor
from x2vlm.settings import Settings
from x2vlm.stickers import ANSWERS

MISTAKES = 0.05
"""Share of the true phrases that may be called absent, and of the absent ones that may be called
found."""
NOTE = "mini knows the sticker world only; for photographs choose an X2-VLM checkpoint"


@torch.no_grad()
def calibrate(model: X2VLM, processor: Processor, scenes: int) -> Settings:
    """Settings for a model of the sticker world, from the first `scenes` scenes of the `val` split.

    `absent` lies below all but 5 % of the true phrases and `present` above all but 5 % of the
    absent ones; where the two kinds do not overlap, the gap between them is the range of doubt.
    """
    data = DataConfig(stickers=StickerData(split="val"))
    pointing = []
    for layer in (None, *range(model.config.fusion.num_layers)):
        task = Grounding(batch_size=1, data=data, explain_layer=layer)
        task.prepare_texts(processor)
        pointing.append((task.measure(model, task.open_test(data, scenes))["pointing"], layer))
    task = Matching(batch_size=1, data=data)
    task.prepare_texts(processor)
    odds, labels = task.scores(model, task.open_test(data, scenes))
    probability = 1 / (1 + np.exp(-odds))
    edges = (
        np.quantile(probability[labels == 1], MISTAKES),
        np.quantile(probability[labels == 0], 1 - MISTAKES),
    )
    return Settings(
        max_tokens=48,
        min_length=0,
        no_repeat_ngram_size=0,  # true captions name two large things in a row
        absent=round(float(min(edges)), 3),
        present=round(float(max(edges)), 3),
        answers=ANSWERS,
        explain_layer=max(pointing, key=lambda found: found[0])[1],
        note=NOTE,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--run", required=True, help="output_dir of a finished run, or a model folder"
    )
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument(
        "--scenes", type=int, default=300, help="validation scenes for the settings"
    )
    options = parser.parse_args(arguments)
    source = Path(options.run)
    try:
        loaded = load_model(source / "final" if (source / "final").is_dir() else source)
        processor = Processor.from_pretrained(loaded.tokenizer_dir, loaded.config)
        settings = calibrate(loaded.model, processor, options.scenes)
        card = Path(options.out) / "README.md"
        kept = card.read_text(encoding="utf-8") if card.is_file() else None
        out = save_model(
            loaded.model, options.out, processor.tokenizer, kept, torch.float16, settings
        )
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{out}: absent below {settings.absent}, found from {settings.present}, maps of layer "
        f"{settings.explain_layer}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
