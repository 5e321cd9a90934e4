"""Which heat maps of a checkpoint point best: target, method, layer and head for every use, chosen
by the pointing game (Zhang et al., arXiv 1608.00507) on images with known boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from x2vlm.errors import CheckpointError, DataError, X2VLMError
from x2vlm.inference.explain import agreement
from x2vlm.inference.predictor import Predictor
from x2vlm.inference.scene import Scene
from x2vlm.inspection.measure import medium
from x2vlm.inspection.truth import Box, Truth
from x2vlm.options import METHODS, USES, MapChoice, MapChoices
from x2vlm.results import Explanation

CASES = 200
"""Texts that each use is measured on at most."""
METHODS_TRIED = ("gradient", "attention", "rollout", "similarity")
"""Those that tell the words of a text apart, or the phrases that are read by themselves."""
GRADIENT_TARGETS = ("caption", "answer")
"""Those that a map of the text alone says nothing of: the words of a sentence, an answer."""
YES = "yes"


@dataclass(frozen=True)
class Case:
    """A text of an image, and where what it names is.

    Attributes:
        box: (x1, y1, x2, y2) as fractions of the sides.
        start: character of the text whose phrase is looked at; None for the text as a whole.
    """

    scene: Scene
    text: str
    box: Box
    start: int | None

    def is_hit(self, explanation: Explanation) -> bool:
        """Whether the peak lies in the box; that of a flat map lies nowhere."""
        heat = explanation.overall
        if self.start is not None:
            behind = [one for one in explanation.phrases if one.end > self.start]
            if not behind:
                return False
            heat = explanation.maps[behind[0].words[0]]
        return agreement(heat, self.box).pointing_hit is True


@dataclass(frozen=True)
class Calibration:
    """Attributes:
    choices: the best choice for every use; for a use that could not be measured the one before.
    pointing: use -> choice -> share of the peaks inside their boxes, in the order of the search.
    cases: use -> texts that it was measured on.
    """

    choices: MapChoices
    pointing: Mapping[str, Mapping[MapChoice, float]]
    cases: Mapping[str, int]


def calibrate(
    predictor: Predictor,
    truths: Sequence[Truth],
    before: MapChoices,
    progress: Callable[[str, MapChoice, float], None] = lambda use, choice, pointing: None,
) -> Calibration:
    """Search target and method first, then the layer, then the head; of equals the first stays.

    Args:
        predictor: one checkpoint.
        before: the choices that stay for uses that these data or the model's heads leave out.
        truths: images with regions. A region's text is asked by itself (`query`, `phrase`), in the
            captions that hold it (`caption`), and as the question whether it is there (`answer`).
        progress: called with every choice that was measured.

    Raises:
        DataError: no region of these data can be used (`data/missing`).
    """
    cases: dict[str, list[Case]] = {use: [] for use in USES}
    for truth in truths:
        if not truth.regions or all(len(found) >= CASES for found in cases.values()):
            continue
        try:
            scene = predictor.encode(medium(truth, predictor))
        except X2VLMError:  # an unreadable image costs its own texts
            continue
        for use, found in cases.items():
            found += _cases(use, truth, scene)
    if not cases["query"]:
        raise DataError(
            "These data have no phrases with boxes, which a calibration needs.", "data/missing"
        )
    choices, pointing = before, {}
    for use, found in cases.items():
        measured = _search(predictor, use, found[:CASES], progress) if found else {}
        if measured:
            pointing[use] = measured
            choices = replace(choices, **{use: max(measured, key=measured.__getitem__)})
    return Calibration(choices, pointing, {use: len(found[:CASES]) for use, found in cases.items()})


def _cases(use: str, truth: Truth, scene: Scene) -> Iterator[Case]:
    width, height = scene.size
    for region in truth.regions:
        x, y, w, h = region.pixels(scene.size)
        box = (x / width, y / height, (x + w) / width, (y + h) / height)
        if use == "caption":
            for caption in truth.captions:
                start = f" {caption.lower()} ".find(f" {region.text.lower()} ")
                if start >= 0:
                    yield Case(scene, caption, box, start)
                    break
        elif use == "answer":
            yield Case(scene, f"is there {region.text}?", box, None)
        else:
            yield Case(scene, region.text, box, 0 if use == "query" else None)


def _search(
    predictor: Predictor,
    use: str,
    cases: Sequence[Case],
    progress: Callable[[str, MapChoice, float], None],
) -> dict[MapChoice, float]:
    measured: dict[MapChoice, float] = {}

    def measure(choices: Sequence[MapChoice]) -> MapChoice | None:
        for choice in choices:
            if choice not in measured:
                try:
                    measured[choice] = _pointing(predictor, use, cases, choice)
                except CheckpointError:  # the model lacks the head of this target
                    continue
                progress(use, choice, measured[choice])
        return max(measured, key=measured.__getitem__, default=None)

    targets = [name for name in USES[use].targets if name != "answer" or use == "answer"]
    tried = [MapChoice(t, method) for t in targets for method in METHODS_TRIED]
    best = measure(
        [
            one
            for one in tried
            if one.target not in GRADIENT_TARGETS or not METHODS[one.method].whole
        ]
    )
    if best is not None and METHODS[best.method].layered:
        layers, heads = range(predictor.info.num_layers), range(predictor.info.num_heads)
        best = measure([replace(best, layer=layer) for layer in layers])
        measure([replace(best, head=head) for head in ("max", *heads)])
    return measured


def _pointing(predictor: Predictor, use: str, cases: Sequence[Case], choice: MapChoice) -> float:
    """Share of the peaks that lie in their boxes. A text that cannot be explained is a miss."""
    options = {
        "use": use,
        "target": choice.target,
        "method": choice.method,
        "layer": "mean" if choice.layer is None else choice.layer,
        "head": "mean" if choice.head is None else choice.head,
    }
    if use == "answer":
        options["answer"] = YES
    hits = []
    for start in range(0, len(cases), predictor.batch_size):
        part = cases[start : start + predictor.batch_size]
        found = predictor.explain(
            [one.scene for one in part], [one.text for one in part], **options
        )
        hits += [
            isinstance(one, Explanation) and case.is_hit(one)
            for case, one in zip(part, found, strict=True)
        ]
    return float(np.mean(hits))
