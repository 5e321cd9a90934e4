"""Predictor: the one facade for app, command line and notebooks.

Images, videos and texts in, frozen results in the user's own pixels out. A Predictor has no state
but its frozen models, so threads may share it, and an answer from a kept `Scene` is the answer from
a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    check_number,
    check_texts,
)
from x2vlm.inference.answers import answer_questions
from x2vlm.inference.batch import one_by_one
from x2vlm.inference.captions import complete_masks, write_ranked
from x2vlm.inference.explanations import (
    choose_map,
    choose_target,
    explain_alone,
    explain_sentence,
)
from x2vlm.inference.faithfulness import check_deletion
from x2vlm.inference.grounding import FoundPhrase, find_phrases, make_grounding
from x2vlm.inference.matching import MAX_TEXTS, match_frames, match_texts
from x2vlm.inference.models import (
    Member,
    gpu_memory,
    load_suite,
    prepare,
)
from x2vlm.inference.scene import (
    chosen_frame,
    frame_embeds,
    whole_embeds,
)
from x2vlm.inference.suite import Suite
from x2vlm.inference.targets import explained_text
from x2vlm.known import DEFAULT
from x2vlm.modeling.x2vlm import X2VLM, region_context_mask
from x2vlm.options import (
    TARGETS,
    AnswerOptions,
    CaptionOptions,
    DeletionOptions,
    ExplainOptions,
)
from x2vlm.processing import Processor
from x2vlm.results import (
    Answers,
    Caption,
    Completion,
    DeletionCheck,
    Explanation,
    Grounding,
    Match,
    RegionDescription,
    with_notes,
)
from x2vlm.settings import Settings, check_thresholds

MAX_CHOICES = 20_000


class Predictor(Suite):
    """Caption, ask, ground, match and explain. Make one with `from_pretrained`, or `from_model` for
    a model in memory.

    Every method takes a `Scene` of `encode`, or the image or video itself. A video is a path, bytes
    or `Frames([...])`; a list is a batch, for which a list comes back in the same order, with an
    X2VLMError where an item failed. `cancel` is any object with `is_set()`, looked at between
    stages. Boxes are in pixels of the upright image.

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

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | Mapping[str, str | Path] = DEFAULT,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        progress: hub.Progress | None = None,
        allow_extra: bool = False,
    ) -> Predictor:
        """Load a model by name, folder or file, or a suite as a mapping task -> name.

        Args:
            device: by default the first GPU if there is one.
            dtype: `float32` by default; `bfloat16` halves memory and is faster where supported.
            progress: called with (bytes here, bytes in all) while a known checkpoint is downloaded.
            allow_extra: leave out weights that no rule knows; see `x2vlm.checkpoint.load`.
        Raises:
            CheckpointError, ParameterError: see `load_model`, `load_suite`.
        """
        return cls(*load_suite(name_or_path, device, dtype, progress, allow_extra))

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
        prepared = prepare(model, words.device, words.dtype)
        return cls([Member(name, "", prepared, processor, settings or Settings())])

    @gpu_memory()
    def caption(
        self,
        scene: Any,
        *,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> tuple[Caption, ...]:
        """Describe an image or video. Where a model can match, all that the beams found is ranked
        by `caption_score`.

        Args:
            options: fields of `x2vlm.options.CaptionOptions`, such as `num_beams`, `num_captions`,
                `max_new_tokens`, `do_sample`, `seed` and `prefix`.
        """
        chosen, member = CaptionOptions(**options), self._member("caption")

        def run(scenes, _):
            match = self._judge(lambda judge: (whole_embeds(scenes, judge, cancel),), cancel)
            embeds = whole_embeds(scenes, member, cancel)
            return write_ranked(member, embeds, chosen, match, cancel=cancel, progress=progress)

        return self._each(run, scene, cancel=cancel)

    @gpu_memory()
    def answer(
        self,
        scene: Any,
        question: str | Sequence[str],
        *,
        choices: Sequence[str] | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ) -> Answers:
        """Answer a question about an image or video.

        Args:
            question: of a list of images one for all, or a list of one for each.
            choices: answers to rank, by default the model's own list.
            options: fields of `x2vlm.options.AnswerOptions`: `top_k`, `mode`.
        """
        chosen, member = AnswerOptions(**options), self._member("answer")
        listed = None if choices is None else tuple(check_texts("choices", choices, MAX_CHOICES))

        def run(scenes, questions):
            tokens = [member.processor.tokenize(one, "question", "question") for one in questions]
            embeds = whole_embeds(scenes, member, cancel)
            ranked = member.answers if listed is None else listed
            return answer_questions(member, embeds, tokens, ranked, chosen, cancel)

        return self._each(run, scene, question, cancel=cancel)

    @gpu_memory()
    def ground(
        self,
        scene: Any,
        phrases: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        explain: bool = True,
        thresholds: tuple[float, float] | None = None,
        frame: int | None = None,
        cancel: Cancel | None = None,
    ) -> tuple[Grounding, ...]:
        """Find one box per phrase, and say whether it is there at all; one Grounding per phrase, in
        their order.

        Args:
            phrases: of a list of images, a list of lists has those of each image.
            explain: add the heat map of the match (of the box where there is no matching head) and
                its agreement with the box, from the same pass.
            thresholds: match probabilities (absent, present), by default `info.thresholds`.
            frame: which of `scene.frames` of a video, the middle one by default.
        """
        member = self._member("ground")
        stored = (member.settings.absent, member.settings.present)
        limits = check_thresholds(stored if thresholds is None else thresholds)

        def run(scenes, phrases):
            numbers = [chosen_frame(one, frame) for one in scenes]
            found = self._find(scenes, numbers, phrases, explain, cancel)
            return [
                tuple(make_grounding(phrase, one, limits, number) for phrase in some)
                for one, some, number in zip(scenes, found, numbers, strict=True)
            ]

        return self._each(run, scene, phrases, several=True, cancel=cancel)

    def _find(self, scenes, numbers, phrases, explain: bool, cancel) -> list[list[FoundPhrase]]:
        """Phrases of each image in one of its frames; see `find_phrases`."""
        member = self._member("ground")
        texts = [check_texts("phrases", one, MAX_TEXTS) for one in phrases]

        def look(judge: Member) -> tuple[Tensor]:
            return (frame_embeds(scenes, numbers, judge, cancel),)

        match = self._judge(look, cancel)
        return find_phrases(member, *look(member), texts, explain, match, cancel)

    @gpu_memory()
    def find_phrases(
        self, scene: Any, phrases: Any, *, cancel: Cancel | None = None
    ) -> list[FoundPhrase]:
        """As `ground`, with the boxes as they were predicted: for measuring."""

        def run(scenes, phrases):
            return self._find(scenes, [one.middle for one in scenes], phrases, True, cancel)

        return self._each(run, scene, phrases, several=True, cancel=cancel)

    @gpu_memory()
    def explain(
        self, scene: Any, text: str | Sequence[str], *, cancel: Cancel | None = None, **options: Any
    ) -> Explanation:
        """Show which patches a text rests on, phrase by phrase; of a video, patches of the mean
        over its frames. Without options it explains what points best for the checkpoint.

        Args:
            text: a description, a caption (`use="caption"`), or a question (`use="answer"`); of a
                list of images one for all, or a list of one for each.
            options: fields of `x2vlm.options.ExplainOptions`: `use`, `target`, `answer`, `method`,
                `layer`, `head`, `unit`, `seed`. The official Grad-CAM of every word is
                `target="match", method="gradient", unit="word"` and a `layer`.
        """
        chosen = ExplainOptions(**options)
        target = choose_target(self._serving, chosen)
        member = self._member(TARGETS[target].task, *TARGETS[target].heads)
        choice = choose_map(member, chosen, target)

        def run(scenes, texts):
            embeds = whole_embeds(scenes, member, cancel)
            check_cancel(cancel)
            if target == "phrase":
                return explain_alone(member, embeds, texts, choice, chosen)
            answers = [chosen.answer] * len(texts)
            if target == "answer" and chosen.answer is None:
                found = [self.answer(*pair, cancel=cancel) for pair in zip(scenes, texts)]
                answers = [one.best for one in found]
            return [
                explain_sentence(
                    member, own, explained_text(member, words, target, answer), choice, chosen
                )
                for own, words, answer in zip(embeds.split(1), texts, answers)
            ]

        return self._each(run, scene, text, cancel=cancel)

    @gpu_memory()
    def match(
        self,
        scene: Any,
        texts: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        cancel: Cancel | None = None,
    ) -> tuple[Match, ...]:
        """Say how well texts fit an image or video; one Match per text, in their order. Of a list
        of images, a list of lists has the texts of each."""
        member = self._member("match")

        def run(scenes, texts):
            texts = [check_texts("texts", one, MAX_TEXTS) for one in texts]
            return match_texts(member, texts, whole_embeds(scenes, member, cancel), cancel=cancel)

        return self._each(run, scene, texts, several=True, cancel=cancel)

    @one_by_one
    @gpu_memory()
    def match_over_time(
        self, scene: Any, text: str, *, cancel: Cancel | None = None
    ) -> tuple[tuple[float, float | None], ...]:
        """(seconds, match probability) for each frame that is seen of a video. Without a matching
        head the cosine stands in."""
        member, scene = self._member("match"), self.encode(scene, cancel=cancel)
        values = match_frames(member, scene.embeds(member, cancel).frames, text, cancel)
        return tuple(zip(scene.times, values, strict=True))

    @one_by_one
    @gpu_memory()
    def complete(
        self, scene: Any, text: str, top_k: int = 5, *, cancel: Cancel | None = None
    ) -> tuple[Completion, ...]:
        """Fill the `[MASK]`s of a text, best filling first."""
        member, scene = self._member("complete"), self.encode(scene, cancel=cancel)
        embeds = scene.embeds(member, cancel).whole
        found = complete_masks(member, embeds, text, check_number("top_k", top_k, 1, 100))
        return with_notes(found, scene.notes)

    @one_by_one
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
            phrases: texts to rank for the region; `caption_options` as for `caption`.
        """
        options = CaptionOptions(**caption_options)
        member, scene = self._member("describe_region"), self.encode(scene, cancel=cancel)
        box = check_box(box_xyxy, scene.size)

        def region(judge: Member) -> tuple[Tensor, Tensor]:
            return scene.region_embeds(judge, box, cancel)

        captions, matches = (), ()
        if phrases is not None:
            judge = self._member("match")
            texts = check_texts("phrases", phrases, MAX_TEXTS)
            (matches,) = match_texts(judge, [texts], *region(judge), cancel=cancel)
        if member.model.config.writes:
            embeds, patches = region(member)
            match, seen = self._judge(region, cancel), region_context_mask(patches)
            (captions,) = write_ranked(member, embeds, options, match, seen, cancel)
        ranked = sorted(
            matches, key=lambda m: -(m.similarity if m.probability is None else m.probability)
        )
        width, height = scene.size
        pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        return RegionDescription(pixels, captions, tuple(ranked), notes=scene.notes)

    @gpu_memory()
    def deletion_check(
        self,
        scene: Any,
        explanation: Explanation,
        *,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> DeletionCheck:
        """Test a map: grey the hottest patches step by step and watch the match of its text fall,
        against random patches.

        Args:
            options: fields of `x2vlm.options.DeletionOptions`: `steps`, `draws`, `seed`. The image
                is encoded `(steps + 1) * (1 + draws)` times.
        """
        chosen = DeletionOptions(**options)
        member, scene = self._member("match", "matching"), self.encode(scene, cancel=cancel)
        checked = check_deletion(member, scene, explanation, chosen, cancel, progress)
        return with_notes(checked, scene.notes)
