"""The public endpoints: typed and documented functions for `gradio_client` and MCP.

Results are the Predictor's values as plain JSON; boxes are in pixels of the upright picture.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gradio as gr

from x2vlm.errors import MediaError

from . import inputs, limits, measures
from .service.admission import uploaded
from .service.events import as_job
from .service.messages import complaint
from .service.runner import Runner
from .state import MediaRef

FieldCheck = Callable[[Sequence[Any], Mapping[str, str]], list[dict[str, Any]]]
Method = Literal["gradient", "attention", "rollout", "image-gradcam", "random"]


class Endpoints:
    """The five endpoints over one `Runner` and its default model."""

    def __init__(self, runner: Runner):
        self.runner = runner

    def caption(
        self,
        media: gr.FileData,
        num_beams: int = 3,
        num_captions: int = 1,
        max_new_tokens: int = 30,
        do_sample: bool = False,
        top_p: float = 0.9,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Describe a picture or clip.

        Args:
            media: an uploaded picture or clip.
            num_beams: width of the beam search, 1 to 10.
            num_captions: how many captions to return, 1 to 5.
            max_new_tokens: length limit in word pieces, 1 to 100.
            do_sample: sample instead of beam search.
            top_p: nucleus of the sampling, up to 1.
            temperature: of the sampling.
            seed: of the sampling.

        Returns:
            {"captions": [...]}, best first, each with text, words with probabilities, and match.
        """
        options = inputs.caption_options(
            do_sample, num_beams, num_captions, 0, max_new_tokens, top_p, temperature, seed, None
        )
        return {"captions": [found.to_dict() for found in self._run("caption", media, **options)]}

    def ask(
        self,
        media: gr.FileData,
        question: str,
        choices: list[str] | None = None,
        top_k: int = 5,
        mode: Literal["auto", "rank", "generate"] = "auto",
    ) -> dict[str, Any]:
        """Answer a question about a picture or clip.

        Args:
            media: an uploaded picture or clip.
            question: in English.
            choices: rank these answers instead of the model's own list.
            top_k: how many answers to return, 1 to 100.
            mode: "rank" the model's answer list, "generate" freely, or "auto": rank where there is
                a list.

        Returns:
            The question and its answers with probabilities, best first.
        """
        options = inputs.answer_options(mode, choices) | {
            "top_k": inputs.number(top_k, "top_k", 1, 100)
        }
        return self._run("answer", media, inputs.question(question), **options).to_dict()

    def ground(
        self,
        media: gr.FileData,
        phrases: list[str],
        absent_below: float | None = None,
        found_from: float | None = None,
    ) -> dict[str, Any]:
        """Find phrases in a picture: one box each, and whether it is there at all.

        Args:
            media: an uploaded picture, or a clip, whose middle seen frame is searched.
            phrases: up to 10.
            absent_below: match score under which a phrase is "absent"; the model's own by default.
            found_from: match score from which it is "found", not under the other; the model's own
                by default.

        Returns:
            {"groundings": [...]}, in the order asked, each with box_xyxy, box_cxcywh, match,
            verdict and agreement.
        """
        asked = inputs.phrases(phrases)
        absent, present = self.runner.models[None].info.thresholds
        thresholds = inputs.thresholds(
            absent if absent_below is None else absent_below,
            present if found_from is None else found_from,
        )
        found = self._run("ground", media, asked, explain=True, thresholds=thresholds)
        return {"groundings": [_light(grounding.to_dict()) for grounding in found]}

    def explain(
        self,
        media: gr.FileData,
        text: str,
        target: Literal["match", "caption", "answer", "box"] = "match",
        layer: int | None = None,
        method: Method = "gradient",
    ) -> dict[str, Any]:
        """For every word of a text, where in the picture the model looks.

        Args:
            media: an uploaded picture or clip.
            text: a sentence, or a question when the target is "answer".
            target: the score that is explained.
            layer: fusion layer from 0; the model's best one if left out.
            method: of the map; "random" is a baseline.

        Returns:
            The words, and `maps` (words, grid, grid), not normalised, top row first.
        """
        return self._run(
            "explain", media, inputs.text(text), target=target, layer=layer, method=method
        ).to_dict()

    def match(self, media: gr.FileData, texts: list[str]) -> dict[str, Any]:
        """Tell how well texts fit a picture or clip.

        Args:
            media: an uploaded picture or clip.
            texts: up to 20.

        Returns:
            {"matches": [...]}, best first, each with probability (fused) and similarity (cosine).
        """
        return {
            "matches": [
                found.to_dict()
                for found in measures.ranked(self._run("match", media, inputs.texts(texts)))
            ]
        }

    def _run(self, task: str, media: Any, *args: Any, **options: Any) -> Any:
        return self.runner.run(
            task, MediaRef(uploaded(sent(media))), None, uuid.uuid4().hex, *args, **options
        )


def _light(grounding: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in grounding.items() if key != "explanation"}


def sent(media: Any) -> str:
    """The path of the file that came with a call.

    Raises:
        MediaError: none came (`image/empty`).
    """
    path = media.get("path") if isinstance(media, dict) else None
    if not isinstance(path, str):
        raise MediaError(
            "No picture or clip was sent. Upload one, for example with handle_file.", "image/empty"
        )
    return path


RULES = {
    "media": sent,
    "question": inputs.question,
    "phrases": inputs.phrases,
    "text": inputs.text,
    "texts": inputs.texts,
}


def publish(runner: Runner) -> dict[int, FieldCheck]:
    """Offer the endpoints inside the present `gr.Blocks`; returns the check of each one's fields by
    the event's number."""
    endpoints, found = Endpoints(runner), {}
    for name in ("caption", "ask", "ground", "explain", "match"):
        endpoint = as_job(runner.jobs, getattr(endpoints, name))
        event = gr.api(
            endpoint,
            api_name=name,
            api_visibility="public",
            concurrency_id="model",
            concurrency_limit=limits.AT_ONCE,
        )
        found[event["id"]] = field_check(list(inspect.signature(endpoint).parameters))
    return found


def field_check(names: Sequence[str]) -> FieldCheck:
    """Of the values and headers of a call: nothing, or one `gr.validate` a field where `RULES`
    refuse one.

    What Gradio's validators do, which `gr.api` does not take and which first build a session for
    whoever has none: 10 ms.
    """

    def check(values: Sequence[Any], headers: Mapping[str, str]) -> list[dict[str, Any]]:
        said = {
            name: complaint(RULES.get(name), value, headers)
            for name, value in zip(names, values, strict=False)
        }
        results = [
            gr.validate(not message, message) | {"parameter_name": name}
            for name, message in said.items()
        ]
        return results if any(said.values()) else []

    return check
