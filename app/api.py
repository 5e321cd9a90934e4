"""The public endpoints: typed and documented functions for `gradio_client` and MCP.

Results are the Predictor's values as plain JSON; boxes are in pixels of the upright image.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gradio as gr

from x2vlm.errors import MediaError, ParameterError
from x2vlm.options import AnswerOptions, CaptionOptions, MethodName, TargetName

from . import inputs, limits, measures
from .api_types import RESULTS
from .service.admission import uploaded
from .service.events import as_job
from .service.messages import complaint, message
from .service.runner import Runner
from .state import MediaRef


class Endpoints:
    """The endpoints over one `Runner` and its default model.

    Every result has `notes`: what the caller should know about the file, for example that only half
    of a video could be read, or that the image is outside the model's world.
    """

    def __init__(self, runner: Runner):
        self.runner = runner

    def caption(
        self,
        media: gr.FileData,
        num_beams: int = CaptionOptions.num_beams,
        num_captions: int = CaptionOptions.num_captions,
        max_new_tokens: int = CaptionOptions.max_new_tokens,
        do_sample: bool = CaptionOptions.do_sample,
        top_p: float = CaptionOptions.top_p,
        temperature: float = CaptionOptions.temperature,
        seed: int = CaptionOptions.seed,
        min_length: int | None = CaptionOptions.min_length,
        prefix: str | None = CaptionOptions.prefix,
        region: list[float] | None = None,
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """Describe an image or video.

        Args:
            media: an uploaded image or video.
            num_beams: width of the beam search, 1 to 10.
            num_captions: how many captions to return, 1 to 5.
            max_new_tokens: length limit in word pieces, 1 to 100.
            do_sample: sample instead of beam search.
            top_p: nucleus of the sampling, up to 1.
            temperature: of the sampling.
            seed: of the sampling.
            min_length: word pieces before the caption may end; the model's own by default.
            prefix: words that the caption begins with.
            region: x1, y1, x2, y2 in pixels of the upright image: describe what is inside.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            {"captions": [...]}, best first, each with text, words with probabilities, and match.
        """
        options = inputs.caption_options(
            do_sample,
            num_beams,
            num_captions,
            min_length or 0,
            max_new_tokens,
            top_p,
            temperature,
            seed,
            prefix,
        )
        if inside := inputs.box(region):
            described, notes = self._run("describe_region", media, frames, inside, **options)
            found = described.captions
        else:
            found, notes = self._run("caption", media, frames, **options)
        return {"captions": [caption.to_dict() for caption in found], "notes": notes}

    def ask(
        self,
        media: gr.FileData,
        question: str,
        choices: list[str] | None = None,
        top_k: int = AnswerOptions.top_k,
        mode: Literal["auto", "rank", "generate"] = "auto",
        region: list[float] | None = None,
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """Answer a question about an image or video.

        Args:
            media: an uploaded image or video.
            question: in English.
            choices: rank these answers instead of the model's own list.
            top_k: how many answers to return, 1 to 100.
            mode: "rank" the model's answer list, "generate" freely, or "auto": rank where there is
                a list.
            region: x1, y1, x2, y2 in pixels of the upright image: ask about what is inside.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            The question and its answers with probabilities, best first.
        """
        options = inputs.answer_options(mode, choices) | {
            "top_k": inputs.number(top_k, "top_k", 1, 100)
        }
        asked = [inputs.question(question)]
        inside = inputs.box(region)
        task, asked = ("answer_region", [inside, *asked]) if inside else ("answer", asked)
        found, notes = self._run(task, media, frames, *asked, **options)
        return found.to_dict() | {"notes": notes}

    def ground(
        self,
        media: gr.FileData,
        phrases: list[str],
        absent_below: float | None = None,
        found_from: float | None = None,
        frame: int | None = None,
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """Find phrases in an image: one box each, and whether it is there at all.

        Args:
            media: an uploaded image, or a video, whose middle seen frame is searched.
            phrases: up to 10.
            absent_below: match score under which a phrase is "absent"; the model's own by default.
            found_from: match score from which it is "found", not under the other; the model's own
                by default.
            frame: which of the seen frames of a video is searched, from 0; the middle one by
                default.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

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
        options = {"explain": True, "thresholds": thresholds, "frame": frame}
        found, notes = self._run("ground", media, frames, asked, **options)
        return {"groundings": [_light(grounding.to_dict()) for grounding in found], "notes": notes}

    def explain(
        self,
        media: gr.FileData,
        text: str,
        target: TargetName | None = None,
        layer: int | Literal["mean"] | None = None,
        method: MethodName | None = None,
        head: int | Literal["mean", "max"] | None = None,
        answer: str | None = None,
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """For every phrase of a text, where in the image the model looks.

        Args:
            media: an uploaded image or video.
            text: a sentence, or a question when the target is "answer".
            target: the score that is explained. Target, layer and method are by default those that
                point best, measured for the model.
            layer: fusion layer from 0, or "mean" of all.
            method: of the map; "random" is a baseline.
            head: attention head from 0, "mean" of all, or "max" of all.
            answer: the answer to explain where the target is "answer"; the best one by default.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            The phrases as `words`, and `maps` (words, grid, grid), not normalised, top row first.
        """
        options = {"target": target, "layer": layer, "method": method}
        options |= {"head": head, "answer": answer}
        found, notes = self._run("explain", media, frames, inputs.text(text), **options)
        return found.to_dict() | {"notes": notes}

    def match(
        self,
        media: gr.FileData,
        texts: list[str],
        region: list[float] | None = None,
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """Tell how well texts fit an image or video.

        Args:
            media: an uploaded image or video.
            texts: up to 20.
            region: x1, y1, x2, y2 in pixels of the upright image: rank for what is inside.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            {"matches": [...]}, best first, each with probability (fused) and similarity (cosine).
        """
        asked = inputs.texts(texts)
        if inside := inputs.box(region):
            described, notes = self._run("describe_region", media, frames, inside, phrases=asked)
            found = described.matches
        else:
            found, notes = self._run("match", media, frames, asked)
        ranked = measures.ranked(found)
        return {"matches": [match.to_dict() for match in ranked], "notes": notes}

    def match_over_time(
        self, media: gr.FileData, text: str, frames: list[int] | None = None
    ) -> dict[str, Any]:
        """Tell how well a text fits each frame of a video that the model sees.

        Args:
            media: an uploaded video.
            text: in English.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            `seconds` and `matches`, one of each a frame.
        """
        found, notes = self._run("match_over_time", media, frames, inputs.text(text))
        seconds, matches = zip(*found)
        return {"seconds": list(seconds), "matches": list(matches), "notes": notes}

    def faithfulness(
        self,
        media: gr.FileData,
        text: str,
        mode: Literal["deletion", "insertion"] = "deletion",
        fill: Literal["blur", "mean"] = "blur",
        frames: list[int] | None = None,
    ) -> dict[str, Any]:
        """Test a text's map: does its match fall faster without the hottest patches?

        Args:
            media: an uploaded image or video.
            text: in English.
            mode: take the hottest patches away, or put them into an empty image.
            fill: what stands in place of a patch that is away.
            frames: numbers of the frames of a video that the model sees; spread evenly by default.

        Returns:
            The match by share of patches, for the hottest first and for random orders, the area
            between both as `faithfulness`, and a verdict.
        """
        asked = inputs.text(text)
        found, notes = self._run("check_text", media, frames, asked, mode=mode, fill=fill)
        return found.to_dict() | {"notes": notes}

    def _run(
        self, task: str, media: Any, frames: list[int] | None, *args: Any, **options: Any
    ) -> tuple[Any, list[str]]:
        """What the task finds, and what the caller should know about the file."""
        seen = MediaRef(uploaded(sent(media)), indices=inputs.frames(frames))
        session = uuid.uuid4().hex
        found, notes = self.runner.run("with_notes", seen, None, session, task, *args, **options)
        return found, list(notes)


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
            "No image or video was sent. Upload one, for example with handle_file.", "image/empty"
        )
    return path


RULES = {
    "media": sent,
    "question": inputs.question,
    "phrases": inputs.phrases,
    "text": inputs.text,
    "texts": inputs.texts,
    "region": inputs.box,
    "frames": inputs.frames,
}
MISSING = object()


class Endpoint:
    """A public function's parameters, and the check of a call's values before it is queued."""

    def __init__(self, name: str, function: Callable):
        self.name = name
        self.parameters = {
            parameter.name: MISSING if parameter.default is parameter.empty else parameter.default
            for parameter in inspect.signature(function).parameters.values()
        }

    def filled(self, values: Sequence[Any]) -> list[Any]:
        """The values with the defaults of those that are left out at the end.

        Raises:
            ParameterError: more values than parameters (`param/unknown`).
        """
        if len(values) > len(self.parameters):
            raise ParameterError(
                f"{len(values)} values given; /{self.name} takes {len(self.parameters)}: "
                f"{', '.join(self.parameters)}.",
                "param/unknown",
            )
        return [*values, *list(self.parameters.values())[len(values) :]]

    def ordered(self, values: Mapping[str, Any]) -> list[Any]:
        """Values by name in the order of the parameters, with the defaults of those left out.

        Raises:
            ParameterError: a name that is no parameter's (`param/unknown`).
        """
        for name in values:
            if name not in self.parameters:
                raise ParameterError(
                    f"/{self.name} has no parameter {name[:40]!r}. Its parameters are "
                    f"{', '.join(self.parameters)}.",
                    "param/unknown",
                )
        return [values.get(name, default) for name, default in self.parameters.items()]

    def complaints(self, values: Sequence[Any], headers: Mapping[str, str]) -> list[dict[str, Any]]:
        """Nothing, or one `gr.validate` a parameter where a value is missing or `RULES` refuse it.

        What Gradio's validators do, which `gr.api` does not take and which first build a session
        for whoever has none: 10 ms.
        """
        said = {
            name: self._complaint(name, value, headers)
            for name, value in zip(self.parameters, values, strict=True)
        }
        if not any(said.values()):
            return []
        return [
            gr.validate(not text, text) | {"parameter_name": name} for name, text in said.items()
        ]

    def _complaint(self, name: str, value: Any, headers: Mapping[str, str]) -> str:
        if value is MISSING:
            needed = [key for key, default in self.parameters.items() if default is MISSING]
            text = f"{name} is missing. /{self.name} needs {' and '.join(needed)}."
            return message(ParameterError(text, "param/missing"), headers)
        return complaint(RULES.get(name), value, headers)


def publish(runner: Runner) -> dict[int, Endpoint]:
    """Offer the endpoints inside the present `gr.Blocks`; returns them by the event's number."""
    endpoints, found = Endpoints(runner), {}
    for name, result in RESULTS.items():
        function = as_job(runner.jobs, getattr(endpoints, name))
        signature = inspect.signature(function)
        function.__signature__ = signature.replace(return_annotation=result)
        event = gr.api(
            function,
            api_name=name,
            api_visibility="public",
            concurrency_id="model",
            concurrency_limit=limits.AT_ONCE,
        )
        found[event["id"]] = Endpoint(name, function)
    return found
