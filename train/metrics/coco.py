"""Captions scored by pycocoevalcap, the field's scorers: PTB tokens, BLEU, METEOR, ROUGE-L, CIDEr
and SPICE. They need Java; `x2vlm.caption_metrics` needs nothing."""

from __future__ import annotations

import importlib.util
import shutil
from subprocess import CalledProcessError
from typing import Any

from x2vlm.errors import ConfigError


def require_coco() -> None:
    """Raises `ConfigError` (`config/value`) when the scorers cannot run here."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise ConfigError("--coco needs pycocoevalcap: pip install pycocoevalcap.", "config/value")
    if shutil.which("java") is None:
        raise ConfigError(
            "--coco needs Java (8 or newer) for PTB tokens, METEOR and SPICE, and there is no "
            "`java` on the path.",
            "config/value",
        )


def coco_scores(predictions: list[dict[str, Any]]) -> dict[str, float]:
    """`coco_*` metrics of `caption` against `references` of each prediction. SPICE downloads its
    parser when it first runs."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.spice.spice import Spice
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    said = {n: [{"caption": p["caption"]}] for n, p in enumerate(predictions)}
    right = {n: [{"caption": t} for t in p["references"]] for n, p in enumerate(predictions)}
    said, right = tokenizer.tokenize(said), tokenizer.tokenize(right)
    found: dict[str, float] = {}
    scorers = {"bleu": lambda: Bleu(4), "meteor": Meteor, "rouge_l": Rouge, "cider": Cider}
    for name, scorer in (scorers | {"spice": Spice}).items():
        try:
            score, _ = scorer().compute_score(right, said)
        except (OSError, ValueError, CalledProcessError) as error:
            if name != "spice":
                raise
            print(f"SPICE cannot run ({error}); the other scores stand.", flush=True)
            continue
        values = score if isinstance(score, list) else [score]
        names = [f"coco_{name}"] if len(values) == 1 else [f"coco_{name}_{n}" for n in (1, 2, 3, 4)]
        found |= dict(zip(names, map(float, values), strict=True))
    return found
