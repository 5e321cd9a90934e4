"""One function a model event: check, call the model, hand the result to its panel and to the stage.

Each gets what is shown (`Shown`), how (`Look`) and which model, then its own controls, and returns
the values of its tab's outputs followed by the stage's (`view.present`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from x2vlm.errors import CheckpointError
from x2vlm.media import write_video
from x2vlm.results import Answers, Explanation
from x2vlm.visualize import annotate_frames, heat_range, overlay_heatmap

from . import cards, inputs, panels
from .curve import curve
from .service.gradio_patches import results_folder
from .service.runner import Runner
from .view import Layer, Look, Shown, focus, loaded, present, with_result

Side = float | None


class Handlers:
    """The model's events over one `Runner`."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def run(
        self,
        request: gr.Request,
        shown: Shown | None,
        model: str,
        task: str,
        *args: Any,
        alone: int | None = None,
        **options: Any,
    ) -> Any:
        """Call the model on what is shown, or `alone` on one frame of it."""
        media = dataclasses.replace(loaded(shown).media, frame=alone)
        return self.runner.run(task, media, model, request.session_hash or "", *args, **options)

    def why(
        self, request: gr.Request, shown: Shown, model: str, text: str, **options: Any
    ) -> Explanation | None:
        """The maps of a text, or None where the model cannot explain this."""
        try:
            return self.run(request, shown, model, "explain", text, **options)
        except CheckpointError:
            return None

    def describe(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        decoding: str,
        num_beams: float,
        num_captions: float,
        min_length: float,
        max_new_tokens: float,
        top_p: float,
        temperature: float,
        seed: float,
        prefix: str,
    ) -> list[Any]:
        options = inputs.caption_options(
            decoding == "sample",
            num_beams,
            num_captions,
            min_length,
            max_new_tokens,
            top_p,
            temperature,
            seed,
            prefix,
        )
        found = self.run(request, shown, model, "caption", **options)
        best = Layer(
            found[0].text, self.why(request, shown, model, found[0].text, target="caption")
        )
        return [
            *panels.describe(found),
            *result(shown, look, model, "caption", found, (best,), options),
        ]

    def ask(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        question: str,
        mode: str,
        choices: str,
    ) -> list[Any]:
        options = inputs.answer_options(mode, choices)
        found = self.run(request, shown, model, "answer", inputs.question(question), **options)
        layers = tuple(
            Layer(
                a.text,
                self.why(request, shown, model, found.question, target="answer", answer=a.text),
            )
            for a in found.answers
        )
        return [
            *panels.ask(found),
            *result(shown, look, model, "answer", (found,), layers, options),
        ]

    def find(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        phrases: str,
        absent_below: float,
        found_from: float,
        *sides: Side,
    ) -> list[Any]:
        asked = inputs.phrases(phrases)
        box = inputs.region(sides, loaded(shown).seen.size)
        options = {"thresholds": inputs.thresholds(absent_below, found_from)}
        options |= {"frame": shown.clip_frame}
        found = self.run(request, shown, model, "ground", asked, explain=True, **options)
        stage = result(shown, look, model, "ground", found, panels.layers("ground", found), options)
        return [*panels.find(found, shown.seen.size, box), *stage]

    def inspect(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        text: str,
        target: str,
        layer: str,
        head: str,
        method: str,
    ) -> list[Any]:
        options = {
            "target": target,
            "layer": inputs.which(layer),
            "head": inputs.which(head),
            "method": method,
        }
        found = self.run(request, shown, model, "explain", inputs.text(text), **options)
        stage = result(
            shown, look, model, "explain", (found,), (Layer(found.text, found),), options
        )
        return [*panels.inspect(found, shown.seen, shown.frame), *stage]

    def match(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        texts: str,
        template: str,
    ) -> list[Any]:
        asked = inputs.filled(template, inputs.texts(texts))
        found = panels.ranked(self.run(request, shown, model, "match", asked))
        return [
            *panels.match(found),
            *result(shown, look, model, "match", found, (), {"template": template}),
        ]

    # one region of the picture

    def describe_region(
        self, request: gr.Request, shown: Shown | None, look: Look, model: str, *sides: Side
    ) -> list[Any]:
        box = inputs.needed_region(sides, loaded(shown).seen.size)
        found = self.run(
            request, shown, model, "describe_region", box, alone=shown.clip_frame
        ).captions
        return [
            *panels.describe(found),
            *of_region(shown, look, model, "describe_region", found, box),
        ]

    def ask_region(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        question: str,
        *sides: Side,
    ) -> list[Any]:
        box = inputs.needed_region(sides, loaded(shown).seen.size)
        asked = inputs.question(question)
        found: Answers = self.run(
            request, shown, model, "answer_region", box, asked, alone=shown.clip_frame
        )
        return [
            *panels.ask(found, True),
            *of_region(shown, look, model, "answer_region", (found,), box),
        ]

    def rank_region(
        self,
        request: gr.Request,
        shown: Shown | None,
        look: Look,
        model: str,
        texts: str,
        *sides: Side,
    ) -> list[Any]:
        box = inputs.needed_region(sides, loaded(shown).seen.size)
        asked = inputs.texts(texts)
        found = self.run(
            request, shown, model, "describe_region", box, phrases=asked, alone=shown.clip_frame
        ).matches
        return [
            *panels.match(found),
            *of_region(shown, look, model, "match_region", panels.ranked(found), box),
        ]

    # slower looks, each on its own button

    def over_time(self, request: gr.Request, shown: Shown | None, model: str, texts: str) -> str:
        """Match of the first text with every seen frame."""
        text = inputs.texts(texts)[0]
        times, values = zip(*self.run(request, shown, model, "match_over_time", text))
        return curve(times, {"match": values}, "seconds", choosable=True)

    def annotate(self, request: gr.Request, shown: Shown | None, model: str, phrases: str) -> Any:
        """The seen frames with their boxes, as an H.264 clip that plays as long as the original."""
        asked = inputs.phrases(phrases)
        found = self.run(request, shown, model, "ground_frames", asked)
        seen = shown.seen
        scale = seen.frames[0].width / seen.size[0], seen.frames[0].height / seen.size[1]
        frames = annotate_frames(
            seen.frames, [[_scaled(g, scale) for g in of_frame] for of_frame in found]
        )
        span = max(seen.times[-1] - seen.times[0], 0.1)
        path = results_folder() / "annotated.mp4"
        return gr.update(
            value=str(write_video(frames, max(len(frames) - 1, 1) / span, path)), visible=True
        )

    def deletion(self, request: gr.Request, shown: Shown | None, model: str) -> str:
        """Match probability while patches are greyed, hottest first against at random."""
        explanation = inputs.needed_map(loaded(shown).explanation)
        check = self.run(
            request,
            shown,
            model,
            "deletion_check",
            explanation,
            alone=shown.layers[shown.layer].frame,
        )
        lines = {"by_heat": check.by_heat, "by_chance": check.by_chance}
        return cards.note("faithful", value=f"{check.faithfulness:+.2f}") + curve(
            check.fractions, lines, "fraction"
        )

    def compare(
        self, request: gr.Request, shown: Shown | None, look: Look, model: str, method: str
    ) -> list[Any]:
        """The map in view beside that of another method, all else being equal, and where each is
        hottest."""
        first = inputs.needed_map(loaded(shown).explanation)
        shown = focus(shown, shown.layer, shown.word)
        layer = shown.layers[shown.layer]
        asked = {key: shown.settings.get(key) for key in ("layer", "head")} | {
            "target": first.target,
            "method": method,
        }
        asked["answer"] = layer.name if shown.task == "answer" else None
        second = self.run(request, shown, model, "explain", first.text, alone=layer.frame, **asked)
        pair = [(e, *_in_view(shown, e)) for e in (first, second)]
        pictures = tuple(_overlay(shown, heat, scale, look) for _, heat, scale in pair)
        told = "".join(
            cards.note("compared_peak", method=e.method, **cards.peak(heat)) for e, heat, _ in pair
        )
        return [gr.update(value=pictures, visible=True), told]


def result(
    shown: Shown,
    look: Look,
    model: str,
    task: str,
    found: Any,
    layers: tuple[Layer, ...],
    options: dict[str, Any],
) -> list[Any]:
    """The stage's values for a fresh result."""
    settings = {"model": model} | {
        key: value for key, value in options.items() if value is not None
    }
    return present(with_result(shown, task, tuple(found), layers, settings), look)


def of_region(
    shown: Shown, look: Look, model: str, task: str, found: Any, box: tuple[float, ...]
) -> list[Any]:
    """The stage's values for a fresh result about a region of the frame in view."""
    return result(shown, look, model, task, found, (), {"box_xyxy": box, "frame": shown.clip_frame})


def _scaled(found: Any, scale: tuple[float, float]) -> Any:
    return dataclasses.replace(
        found, box_xyxy=tuple(side * scale[k % 2] for k, side in enumerate(found.box_xyxy))
    )


def _in_view(shown: Shown, explanation: Explanation) -> tuple[np.ndarray, tuple[float, float]]:
    """Another explanation's map of what is in view, and its scale."""
    word = shown.word if shown.word is not None and shown.word < len(explanation.maps) else None
    heat = explanation.overall if word is None else explanation.maps[word]
    return heat, heat_range(heat if word is None else explanation.maps)


def _overlay(shown: Shown, heat: np.ndarray, scale: tuple[float, float], look: Look) -> Image.Image:
    picture = shown.seen.frames[shown.frame]
    return overlay_heatmap(
        picture, heat, look.opacity, look.colormap, scale, look.threshold, look.smooth
    )
