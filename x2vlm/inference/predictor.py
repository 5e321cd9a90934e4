"""Predictor: the one facade for app, command line and notebooks.

Images, videos and texts in, frozen results in the user's own pixels out. A Predictor has no state
but its frozen models, so threads may share it, and an answer from a kept `Scene` is the answer from
a fresh one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from x2vlm.errors import CheckpointError, X2VLMError
from x2vlm.inference.answers import answer_question
from x2vlm.inference.batch import attempt, batched
from x2vlm.inference.captions import complete_masks, write_ranked
from x2vlm.inference.domain import outside_note
from x2vlm.inference.explanations import (
    choose_map,
    choose_target,
    explain_alone,
    explain_sentence,
)
from x2vlm.inference.faithfulness import check_deletion
from x2vlm.inference.grounding import find_phrases, make_grounding
from x2vlm.inference.matching import match_frames, match_texts
from x2vlm.inference.models import (
    Member,
    assign_tasks,
    describe_suite,
    gpu_memory,
    load_suite,
    prepare,
)
from x2vlm.inference.scene import Scene, encode_together, open_scene
from x2vlm.inference.targets import explained_text
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
)
from x2vlm.settings import Settings, check_thresholds

MAX_CHOICES = 20_000


class Predictor:
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

    def __init__(self, members: Sequence[Member], named: Mapping[str, Member] | None = None):
        self._serving, self.missing = assign_tasks(members, named or {})
        self.tasks: tuple[str, ...] = tuple(self._serving)
        self.info = describe_suite(members)

    def __repr__(self) -> str:
        info = self.info
        return f"Predictor({info.name}, {info.device}, {info.dtype}: {', '.join(self.tasks)})"

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | Mapping[str, str | Path] = "mini",
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
            allow_extra: leave out weights that no rule knows; see `x2vlm.checkpoint.load_model`.
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
    def encode(
        self,
        media: Any,
        *,
        num_frames: int | None = None,
        frame_indices: Sequence[int] | None = None,
        cancel: Cancel | None = None,
    ) -> Scene | list[Scene | X2VLMError]:
        """Open an image or video and encode it once, for any number of questions.

        Args:
            media: path, bytes, PIL image, uint8 array (H, W, 3), `Frames` (a video), an opened
                medium or a Scene; or a list of them, for which a list comes back.
            num_frames: frames of a video to look at, evenly spread; `info.num_frames` by default.
            frame_indices: exactly these frames of a video.
        """
        wanted = self.info.num_frames if num_frames is None else num_frames
        count = check_number("num_frames", wanted, 1, 256)
        if not isinstance(media, (list, tuple)):
            return self._prepare(open_scene(media, count, frame_indices, cancel), cancel)
        opened = [attempt(open_scene, one, count, frame_indices, cancel) for one in media]
        members = set(self._serving.values())
        if len(members) == 1:
            encode_together([one for one in opened if isinstance(one, Scene)], *members, cancel)
        return [self._prepare(one, cancel) if isinstance(one, Scene) else one for one in opened]

    def _prepare(self, scene: Scene, cancel: Cancel | None) -> Scene:
        """Encode, where one model serves all, and say what its answers may suffer from."""
        if scene.prepared:
            return scene
        notes = []
        if scene.kind == "video" and "video" in self.missing:
            notes.append(self.missing["video"])
        members = set(self._serving.values())
        if len(members) == 1:  # a suite encodes when it knows which of its models is asked
            (member,) = members
            pooled = scene.embeds(member, cancel).frames[:, 0]
            if member.domain is not None and member.domain.outside(pooled):
                notes.append(outside_note(member.name))
        return dataclasses.replace(scene, notes=(*scene.notes, *notes), prepared=True)

    @batched
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
        chosen = CaptionOptions(**options)
        member, scene = self._member("caption"), self.encode(scene, cancel=cancel)
        embeds = scene.embeds(member, cancel).whole
        match = self._judge(lambda judge: (scene.embeds(judge, cancel).whole,), cancel)
        return tuple(write_ranked(member, embeds, chosen, match, cancel=cancel, progress=progress))

    @batched
    @gpu_memory()
    def answer(
        self,
        scene: Any,
        question: str,
        *,
        choices: Sequence[str] | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ) -> Answers:
        """Answer a question about an image or video.

        Args:
            choices: answers to rank, by default the model's own list.
            options: fields of `x2vlm.options.AnswerOptions`: `top_k`, `mode`.
        """
        chosen = AnswerOptions(**options)
        member, scene = self._member("answer"), self.encode(scene, cancel=cancel)
        tokens = member.processor.tokenize(question, "question", "question")
        listed = member.answers
        if choices is not None:
            listed = tuple(check_texts("choices", choices, MAX_CHOICES))
        embeds = scene.embeds(member, cancel).whole
        return answer_question(member, embeds, tokens, listed, chosen, cancel)

    @batched
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
        stored = (member.settings.absent, member.settings.present)
        limits = check_thresholds(stored if thresholds is None else thresholds)
        last = len(scene.frames) - 1
        number = scene.middle if frame is None else check_number("frame", frame, 0, last)
        part = slice(number, number + 1)
        match = self._judge(lambda judge: (scene.embeds(judge, cancel).frames[part],), cancel)
        embeds = scene.embeds(member, cancel).frames[part]
        found = find_phrases(member, embeds, phrases, explain, match, cancel)
        named = number if scene.kind == "video" else None
        return tuple(make_grounding(one, scene.size, limits, named) for one in found)

    @batched
    @gpu_memory()
    def explain(
        self, scene: Any, text: str, *, cancel: Cancel | None = None, **options: Any
    ) -> Explanation:
        """Show which patches a text rests on, phrase by phrase; of a video, patches of the mean
        over its frames. Without options it explains what points best for the checkpoint.

        Args:
            text: a description, a caption (`use="caption"`), or a question (`use="answer"`).
            options: fields of `x2vlm.options.ExplainOptions`: `use`, `target`, `answer`, `method`,
                `layer`, `head`, `unit`, `seed`. The official Grad-CAM of every word is
                `target="match", method="gradient", unit="word"` and a `layer`.
        """
        chosen = ExplainOptions(**options)
        scene, target = self.encode(scene, cancel=cancel), choose_target(self._serving, chosen)
        member = self._member(TARGETS[target].task, *TARGETS[target].heads)
        choice = choose_map(member, chosen, target)
        answer = chosen.answer
        if target == "answer" and answer is None:
            answer = self.answer(scene, text, cancel=cancel).best
        embeds = scene.embeds(member, cancel).whole
        check_cancel(cancel)
        if target == "phrase":
            return explain_alone(member, embeds, text, choice, chosen)
        explained = explained_text(member, text, target, answer)
        return explain_sentence(member, embeds, explained, choice, chosen)

    @batched
    @gpu_memory()
    def match(
        self, scene: Any, texts: str | Sequence[str], *, cancel: Cancel | None = None
    ) -> tuple[Match, ...]:
        """Say how well texts fit an image or video; one Match per text, in their order."""
        member, scene = self._member("match"), self.encode(scene, cancel=cancel)
        return match_texts(member, texts, scene.embeds(member, cancel).whole, cancel=cancel)

    @batched
    @gpu_memory()
    def match_over_time(
        self, scene: Any, text: str, *, cancel: Cancel | None = None
    ) -> tuple[tuple[float, float | None], ...]:
        """(seconds, match probability) for each frame that is seen of a video. Without a matching
        head the cosine stands in."""
        member, scene = self._member("match"), self.encode(scene, cancel=cancel)
        values = match_frames(member, scene.embeds(member, cancel).frames, text, cancel)
        return tuple(zip(scene.times, values, strict=True))

    @batched
    @gpu_memory()
    def complete(
        self, scene: Any, text: str, top_k: int = 5, *, cancel: Cancel | None = None
    ) -> tuple[Completion, ...]:
        """Fill the `[MASK]`s of a text, best filling first."""
        member, scene = self._member("complete"), self.encode(scene, cancel=cancel)
        embeds = scene.embeds(member, cancel).whole
        return complete_masks(member, embeds, text, check_number("top_k", top_k, 1, 100))

    @batched
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
            matches = match_texts(judge, phrases, *region(judge), cancel=cancel)
        if "masked_lm" in member.model.config.heads:
            embeds, patches = region(member)
            match, seen = self._judge(region, cancel), region_context_mask(patches)
            captions = tuple(write_ranked(member, embeds, options, match, seen, cancel))
        ranked = sorted(
            matches, key=lambda m: -(m.similarity if m.probability is None else m.probability)
        )
        width, height = scene.size
        pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        return RegionDescription(pixels, captions, tuple(ranked))

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
        return check_deletion(member, scene, explanation, chosen, cancel, progress)

    def _judge(
        self, look: Callable[[Member], tuple[Tensor, ...]], cancel: Cancel | None
    ) -> Callable[[list[str]], tuple[Match, ...]] | None:
        """A function that matches what other models say; None where no model has the matching head.
        `look` gives the image embeddings of the judging model, and the patches of a region."""
        judge = self._serving.get("match")
        if judge is None or "matching" not in judge.model.config.heads:
            return None
        return lambda texts: match_texts(judge, texts, *look(judge), cancel=cancel)

    def _member(self, task: str, *heads: str) -> Member:
        """The model for a task that has all of these heads; `CheckpointError` without one."""
        if task in self.missing:
            raise CheckpointError(
                f"{self.missing[task]} Choose a checkpoint that was trained for it.", "ckpt/keys"
            )
        member = self._serving[task]
        member.model.require(*heads)
        return member
