"""Predictor: the one facade for app, command line and notebooks.

Images, videos and texts in, frozen results in the user's own pixels out. A Predictor has no state
but its frozen models, so threads may share it, and an answer from a kept `Scene` is the answer from
a fresh one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from x2vlm import hub
from x2vlm.checks import (
    Cancel,
    Progress,
    check_box,
    check_cancel,
    check_choice,
    check_number,
    check_texts,
)
from x2vlm.errors import CheckpointError, ParameterError
from x2vlm.inference.answers import generate_answers, rank_answers
from x2vlm.inference.captions import CaptionOptions, complete_masks, write_ranked
from x2vlm.inference.faithfulness import check_deletion
from x2vlm.inference.grounding import ground_phrases, make_grounding, match_texts
from x2vlm.inference.models import (
    TASKS,
    Member,
    assign_tasks,
    describe_suite,
    gpu_memory,
    load_member,
    pick_device,
    pick_dtype,
    prepare,
)
from x2vlm.inference.scene import Scene, open_scene
from x2vlm.inference.targets import (
    answer_target,
    box_target,
    caption_target,
    explain_text,
    match_target,
)
from x2vlm.modeling.x2vlm import X2VLM, region_context_mask
from x2vlm.processing import Processor, patch_mask
from x2vlm.results import (
    Answers,
    Caption,
    Completion,
    DeletionCheck,
    Explanation,
    Grounding,
    Match,
    RegionDescription,
)
from x2vlm.settings import Settings, check_thresholds

TEXTS_AT_ONCE = 16
MAX_TEXTS = 1000
MAX_CHOICES = 20_000
METHODS = ("gradient", "attention", "rollout", "image-gradcam", "random")
TARGETS = {
    "match": ("match", "matching"),
    "caption": ("caption",),
    "answer": ("answer",),
    "box": ("ground",),
}
"""Target of an explanation -> the task whose model explains it, and the heads it must have."""


class Predictor:
    """Caption, ask, ground, match and explain. Make one with `from_pretrained`, or `from_model` for
    a model in memory.

    Every method takes a `Scene` of `encode`, or the image or video itself. `cancel` is any object
    with `is_set()`, looked at between stages. Boxes are in pixels of the upright image.

    Attributes:
        tasks: what this Predictor can do.
        missing: task -> why it cannot.
        info: what it runs on.

    Raises (all methods):
        MediaError, TextError, ParameterError: input that cannot be used.
        CheckpointError, ConfigError: the models lack the head (`ckpt/keys`) or the labels
        (`config/value`) for the task. Cancelled: `cancel` was set (`job/cancelled`).
        X2VLMError: the GPU has too little memory (`device/memory`).
    """

    def __init__(self, members: Sequence[Member], named: Mapping[str, Member] | None = None):
        self._serving, self.missing = assign_tasks(members, named or {})
        self.tasks: tuple[str, ...] = tuple(self._serving)
        self.info = describe_suite(members)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | Mapping[str, str | Path] = "mini",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        progress: hub.Progress | None = None,
    ) -> Predictor:
        """Load a model by name, folder or file, or several as a suite, mapped task -> name, folder
        or file.

        Args:
            device: by default the first GPU if there is one.
            dtype: `float32` by default; `bfloat16` halves memory and is faster where the processor
                has it.
            progress: called with (bytes here, bytes in all) while a known checkpoint is downloaded.

        Raises:
            CheckpointError: see `x2vlm.checkpoint.load_model`. ParameterError: unknown device,
                dtype or task (`param/range`).
        """
        device, dtype = pick_device(device), pick_dtype(dtype)
        if not isinstance(name_or_path, Mapping):
            return cls([load_member(name_or_path, device, dtype, progress)])
        if not name_or_path or set(name_or_path) - set(TASKS):
            raise ParameterError(
                f"A suite maps tasks to checkpoints. Tasks: {', '.join(TASKS)}.", "param/range"
            )
        loaded = {
            source: load_member(source, device, dtype, progress)
            for source in dict.fromkeys(name_or_path.values())
        }
        return cls(
            list(loaded.values()), {task: loaded[source] for task, source in name_or_path.items()}
        )

    @classmethod
    def from_model(
        cls,
        model: X2VLM,
        processor: Processor,
        settings: Settings | None = None,
        name: str = "model",
    ) -> Predictor:
        """A Predictor around a model in memory, which it freezes and puts in evaluation mode."""
        words = model.text_encoder.embeddings.words.weight
        return cls(
            [
                Member(
                    name,
                    "",
                    prepare(model, words.device, words.dtype),
                    processor,
                    settings or Settings(),
                )
            ]
        )

    @gpu_memory()
    def encode(
        self,
        media: Any,
        *,
        num_frames: int | None = None,
        frame_indices: Sequence[int] | None = None,
        cancel: Cancel | None = None,
    ) -> Scene:
        """Open an image or video and encode it once, for any number of questions.

        Args:
            media: path, bytes, PIL image, uint8 array (H, W, 3), list of images (a video), an
                opened medium or a Scene.
            num_frames: frames of a video to look at, evenly spread; `info.num_frames` by default.
            frame_indices: exactly these frames of a video.

        Raises:
            MediaError: see `x2vlm.media`.
        """
        if isinstance(media, Scene):
            return media
        count = (
            self.info.num_frames
            if num_frames is None
            else check_number("num_frames", num_frames, 1, 256)
        )
        scene = open_scene(media, count, frame_indices, cancel)
        if scene.kind == "video" and "video" in self.missing:
            scene = dataclasses.replace(scene, notes=(*scene.notes, self.missing["video"]))
        if (
            len(set(self._serving.values())) == 1
        ):  # a suite encodes when it knows which of its models is asked
            scene.embeds(next(iter(self._serving.values())), cancel)
        return scene

    @gpu_memory()
    def caption(
        self,
        scene: Any,
        *,
        num_beams: int = 3,
        num_captions: int = 1,
        min_length: int | None = None,
        max_new_tokens: int = 30,
        do_sample: bool = False,
        top_p: float = 0.9,
        temperature: float = 1.0,
        seed: int = 0,
        prefix: str | None = None,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
    ) -> tuple[Caption, ...]:
        """Describe an image or video. Where a model can match, all that the beams found is ranked
        by `caption_score`.

        Args:
            num_beams: 1 to 10; beam search unless `do_sample`.
            num_captions: 1 to 10, best first.
            min_length: tokens before the caption may end; by default what the model was tuned for.
            max_new_tokens: 1 to 200, cut to what the model can hold.
            do_sample, top_p, temperature, seed: draw instead; the same seed gives the same
                captions.
            prefix: words that the caption begins with.
        """
        options = CaptionOptions(
            num_beams,
            num_captions,
            min_length,
            max_new_tokens,
            do_sample,
            top_p,
            temperature,
            seed,
            prefix,
        )
        member, scene = self._member("caption"), self.encode(scene, cancel=cancel)
        embeds, match = scene.embeds(member, cancel).whole, None
        if self._matcher is not None:
            match = partial(
                self._matches,
                self._matcher,
                scene.embeds(self._matcher, cancel).whole,
                cancel=cancel,
            )
        return tuple(write_ranked(member, embeds, options, match, cancel=cancel, progress=progress))

    @gpu_memory()
    def answer(
        self,
        scene: Any,
        question: str,
        *,
        choices: Sequence[str] | None = None,
        top_k: int = 5,
        mode: str | None = None,
        cancel: Cancel | None = None,
    ) -> Answers:
        """Answer a question about an image or video.

        Args:
            choices: answers to rank, by default the model's own list.
            top_k: 1 to 100 answers to return.
            mode: `rank` or `generate`; by default `rank` where there is a list.
        """
        member, scene = self._member("answer"), self.encode(scene, cancel=cancel)
        tokens = member.processor.tokenize(question, "question", "question")
        top_k = check_number("top_k", top_k, 1, 100)
        listed = (
            tuple(check_texts("choices", choices, MAX_CHOICES))
            if choices is not None
            else member.answers
        )
        mode = check_choice(
            "mode", mode or ("rank" if listed else "generate"), ("rank", "generate")
        )
        if mode == "rank" and not listed:
            raise ParameterError(
                "This model has no answer list. Give choices, or use mode 'generate'.",
                "param/range",
            )
        embeds = scene.embeds(member, cancel).whole
        check_cancel(cancel)
        if mode == "rank":
            answers = rank_answers(member, embeds, tokens, listed, top_k)
        else:
            answers = generate_answers(member, embeds, tokens, top_k, cancel)
        return Answers(tokens.text, answers, mode, tokens.truncated_at)

    @gpu_memory()
    def ground(
        self,
        scene: Any,
        phrases: str | Sequence[str],
        *,
        explain: bool = True,
        thresholds: tuple[float, float] | None = None,
        frame: int | None = None,
        cancel: Cancel | None = None,
    ) -> tuple[Grounding, ...]:
        """Find one box per phrase, and say whether it is there at all; one Grounding per phrase, in
        their order.

        Args:
            explain: add the heat map of the match (of the box where there is no matching head) and
                its agreement with the box, from the same pass.
            thresholds: match probabilities (absent, present), by default `info.thresholds`.
            frame: which of `scene.frames` of a video, the middle one by default.
        """
        member, scene = self._member("ground"), self.encode(scene, cancel=cancel)
        listed = check_texts("phrases", phrases, MAX_TEXTS)
        settings = member.settings
        limits = check_thresholds(
            (settings.absent, settings.present) if thresholds is None else thresholds
        )
        number = (
            scene.middle
            if frame is None
            else check_number("frame", frame, 0, len(scene.frames) - 1)
        )
        embeds = scene.embeds(member, cancel).frames[number : number + 1]
        tokens = [member.processor.tokenize(phrase, field="phrase") for phrase in listed]
        found: list[Grounding] = []
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            check_cancel(cancel)
            part = tokens[start : start + TEXTS_AT_ONCE]
            boxes, matches, explanations = ground_phrases(member, embeds, part, explain)
            if matches[0] is None and (matcher := self._matcher) is not None:
                seen = scene.embeds(matcher, cancel).frames[number : number + 1]
                matches = [
                    m.probability
                    for m in self._matches(matcher, seen, [t.text for t in part], cancel)
                ]
            found += [
                make_grounding(
                    tokenized,
                    box,
                    scene.size,
                    match,
                    limits,
                    heat,
                    number if scene.kind == "video" else None,
                )
                for tokenized, box, match, heat in zip(
                    part, boxes, matches, explanations, strict=True
                )
            ]
        return tuple(found)

    @gpu_memory()
    def explain(
        self,
        scene: Any,
        text: str,
        *,
        target: str = "match",
        answer: str | None = None,
        layer: int | str | None = None,
        head: int | str | None = None,
        method: str = "gradient",
        seed: int = 0,
        cancel: Cancel | None = None,
    ) -> Explanation:
        """Show which patches each word of a text rests on; of a video, patches of the mean over its
        frames.

        Args:
            text: a description, for `target="caption"` a caption, for `target="answer"` the
                question.
            target: what is explained: the `match` of the text, each word of a `caption`, an
                `answer`, or the `box`.
            answer: the answer to explain, by default the best one.
            layer: fusion layer from 0, or `mean`; by default what points best.
            head: attention head from 0, or `max`; by default the mean.
            method: `gradient` (cross-attention Grad-CAM), `attention`, `rollout`, `image-gradcam`
                (one map for the whole text), or `random`, the baseline. Layer and head are for the
                first two.
            seed: of the random baseline.
        """
        check_choice("target", target, tuple(TARGETS))
        check_choice("method", method, METHODS)
        member, scene = self._member(*TARGETS[target]), self.encode(scene, cancel=cancel)
        layer = self._layer(member, layer, method)
        if head is not None and head != "max":
            head = check_number("head", head, 0, member.model.config.fusion.num_heads - 1)
        seed = check_number("seed", seed, 0, 2**63 - 1)
        if target == "answer":
            answer = self.answer(scene, text, cancel=cancel).best if answer is None else answer
            explained = answer_target(member, text, answer)
        else:
            explained = {"match": match_target, "caption": caption_target, "box": box_target}[
                target
            ](member, text)
        embeds = scene.embeds(member, cancel).whole
        check_cancel(cancel)
        words, maps, overall, score = explain_text(
            member, embeds, explained, method, layer, head, seed
        )
        tokens = explained.tokens
        return Explanation(
            tokens.text, words, maps, overall, target, method, layer, score, tokens.truncated_at
        )

    @gpu_memory()
    def match(
        self, scene: Any, texts: str | Sequence[str], *, cancel: Cancel | None = None
    ) -> tuple[Match, ...]:
        """Say how well texts fit an image or video; one Match per text, in their order."""
        member, scene = self._member("match"), self.encode(scene, cancel=cancel)
        return self._matches(member, scene.embeds(member, cancel).whole, texts, cancel)

    @gpu_memory()
    def match_over_time(
        self, scene: Any, text: str, *, cancel: Cancel | None = None
    ) -> tuple[tuple[float, float | None], ...]:
        """(seconds, match probability) for each frame that is seen of a video. Without a matching
        head the cosine stands in."""
        member, scene = self._member("match"), self.encode(scene, cancel=cancel)
        tokens = member.processor.tokenize(text)
        values: list[float | None] = []
        for part in scene.embeds(member, cancel).frames.split(TEXTS_AT_ONCE):
            check_cancel(cancel)
            probabilities, similarities = match_texts(member, part, [tokens] * len(part))
            values += similarities if probabilities[0] is None else probabilities
        return tuple(zip(scene.times, values, strict=True))

    @gpu_memory()
    def complete(
        self, scene: Any, text: str, top_k: int = 5, *, cancel: Cancel | None = None
    ) -> tuple[Completion, ...]:
        """Fill the `[MASK]`s of a text, best filling first."""
        member, scene = self._member("complete"), self.encode(scene, cancel=cancel)
        embeds = scene.embeds(member, cancel).whole
        return complete_masks(member, embeds, text, check_number("top_k", top_k, 1, 100))

    @gpu_memory()
    def describe_region(
        self,
        scene: Any,
        box_xyxy: Sequence[float],
        *,
        phrases: str | Sequence[str] | None = None,
        cancel: Cancel | None = None,
        **caption_options: Any,
    ) -> RegionDescription:
        """Describe what is inside a box, from the one encoding of the image (arXiv 2211.12402,
        section 3.1).

        Args:
            box_xyxy: in pixels; clipped to the image.
            phrases: texts to rank for the region.
            caption_options: as for `caption`.
        """
        member, scene = self._member("describe_region"), self.encode(scene, cancel=cancel)
        box = check_box(box_xyxy, scene.size)

        def matched(judge: Member, texts: str | Sequence[str]) -> tuple[Match, ...]:
            region, patches = _region(scene, judge, box, cancel)
            return self._matches(judge, region, texts, cancel, patches)

        matches, captions = () if phrases is None else matched(self._member("match"), phrases), ()
        if "masked_lm" in member.model.config.heads:
            region, patches = _region(scene, member, box, cancel)
            match = None if self._matcher is None else partial(matched, self._matcher)
            options = CaptionOptions(**caption_options)
            captions = tuple(
                write_ranked(member, region, options, match, region_context_mask(patches), cancel)
            )
        ranked = sorted(
            matches,
            key=lambda match: (
                -(match.similarity if match.probability is None else match.probability)
            ),
        )
        width, height = scene.size
        pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        return RegionDescription(pixels, captions, tuple(ranked))

    @gpu_memory()
    def deletion_check(
        self,
        scene: Any,
        explanation: Explanation,
        steps: int = 10,
        draws: int = 5,
        seed: int = 0,
        *,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
    ) -> DeletionCheck:
        """Test a map: grey the hottest patches step by step and watch the match of its text fall,
        against random patches.

        Args:
            steps: 1 to 100; the image is encoded `(steps + 1) * (1 + draws)` times.
            draws: 1 to 50 random orders.
        """
        member, scene = self._member("match", "matching"), self.encode(scene, cancel=cancel)
        steps, draws = check_number("steps", steps, 1, 100), check_number("draws", draws, 1, 50)
        tokens, grid = (
            member.processor.tokenize(explanation.text),
            member.model.config.vision.grid_size,
        )
        if explanation.overall.shape != (grid, grid):
            raise ParameterError(
                f"The map is not on this model's {grid} x {grid} patches. Explain again.",
                "param/range",
            )
        visual = member.processor.images(scene.frames).to(member.device, member.dtype)
        visual = visual if scene.kind == "video" else visual[0]
        seed = check_number("seed", seed, 0, 2**63 - 1)
        return check_deletion(
            member, visual, tokens, explanation.overall, steps, draws, seed, cancel, progress
        )

    @property
    def _matcher(self) -> Member | None:
        """The model with the matching head that judges what other models say, if there is one."""
        member = self._serving.get("match")
        return member if member is not None and "matching" in member.model.config.heads else None

    def _member(self, task: str, *heads: str) -> Member:
        """The model for a task that has all of these heads.

        Raises:
            CheckpointError: there is none (`ckpt/keys`).
        """
        if task in self.missing:
            raise CheckpointError(
                f"{self.missing[task]} Choose a checkpoint that was trained for it.", "ckpt/keys"
            )
        member = self._serving[task]
        member.model.require(*heads)
        return member

    def _layer(self, member: Member, layer: int | str | None, method: str) -> int | None:
        """The layer that a map comes from, None for all."""
        if method not in ("gradient", "attention") or layer == "mean":
            return None
        if layer is None:
            return member.settings.explain_layer
        return check_number("layer", layer, 0, member.model.config.fusion.num_layers - 1)

    def _matches(
        self,
        member: Member,
        embeds: Tensor,
        texts: str | Sequence[str],
        cancel: Cancel | None,
        patches: Tensor | None = None,
    ) -> tuple[Match, ...]:
        tokens = [
            member.processor.tokenize(text) for text in check_texts("texts", texts, MAX_TEXTS)
        ]
        found: list[Match] = []
        for start in range(0, len(tokens), TEXTS_AT_ONCE):
            check_cancel(cancel)
            part = tokens[start : start + TEXTS_AT_ONCE]
            for text, probability, similarity in zip(
                part, *match_texts(member, embeds, part, patches), strict=True
            ):
                found.append(Match(text.text, probability, similarity, text.truncated_at))
        return tuple(found)


def _region(
    scene: Scene, member: Member, box: tuple[float, ...], cancel: Cancel | None
) -> tuple[Tensor, Tensor]:
    """float[1, P, D] and bool[1, P-1]: a box in fractions as one model sees it, and the patches in
    it."""
    patches = patch_mask(box, member.model.config.vision.grid_size)[None].to(member.device)
    whole = scene.embeds(member, cancel).frames[scene.middle : scene.middle + 1]
    return member.model.encode_regions(
        whole, patches, torch.zeros(1, dtype=torch.long, device=member.device)
    ), patches
