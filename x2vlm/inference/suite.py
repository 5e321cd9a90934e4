"""The models of a Predictor, the scenes that they encode, and the batches of what is asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from x2vlm.checks import Cancel, check_number
from x2vlm.errors import CheckpointError, X2VLMError
from x2vlm.inference.batch import attempt, images_at_once, in_parts, spread, together
from x2vlm.inference.columns import ColumnFunction
from x2vlm.inference.domain import outside_note
from x2vlm.inference.matching import encode_texts, match_texts
from x2vlm.inference.models import Member, assign_tasks, describe_suite, gpu_memory
from x2vlm.inference.scene import Scene, encode_together, open_scene, whole_embeds
from x2vlm.results import Match, with_notes
from x2vlm.serving import plan_concurrency


class Suite:
    """One model with every head, or several that share the tasks. Attributes as of `Predictor`."""

    def __init__(self, members: Sequence[Member], named: Mapping[str, Member] | None = None):
        self._serving, self.missing = assign_tasks(members, named or {})
        self.tasks: tuple[str, ...] = tuple(self._serving)
        self.info = describe_suite(members)

    def __repr__(self) -> str:
        info = self.info
        return f"Predictor({info.name}, {info.device}, {info.dtype}: {', '.join(self.tasks)})"

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

        def run(part: Sequence[Any]) -> list[Scene | X2VLMError]:
            return self._encode_part(part, cancel, count, frame_indices)

        return in_parts(run, media, self.batch_size, self._workers)

    def _encode_part(
        self,
        media: Sequence[Any],
        cancel: Cancel | None,
        num_frames: int | None = None,
        frame_indices: Sequence[int] | None = None,
    ) -> list[Scene | X2VLMError]:
        """A batch of images or videos, opened and encoded."""
        count = num_frames or self.info.num_frames
        opened = [attempt(open_scene, one, count, frame_indices, cancel) for one in media]
        members = set(self._serving.values())
        if len(members) == 1:
            images = [one for one in opened if isinstance(one, Scene) and one.kind == "image"]
            together(lambda some: encode_together(some, *members, cancel), images)
        return [self._prepare(one, cancel) if isinstance(one, Scene) else one for one in opened]

    @functools.cached_property
    def batch_size(self) -> int:
        """Images that go through the models together."""
        return min(map(images_at_once, set(self._serving.values())), default=1)

    @functools.cached_property
    def _workers(self) -> int:
        """Batches that are worked on side by side."""
        return plan_concurrency(self.info.parameters, self.info.device).workers

    @property
    def items_at_once(self) -> int:
        """How many items a list should have at least to keep the machine busy."""
        return self.batch_size * self._workers

    def _each(
        self,
        run: Callable[[Sequence[Scene], Sequence[Any]], list[Any]],
        media: Any,
        texts: Any = None,
        several: bool = False,
        cancel: Cancel | None = None,
    ) -> Any:
        """What `run` says of a batch of scenes and their texts: one result for one medium, a list
        for a list. `several` as in `spread`."""
        if not isinstance(media, (list, tuple)):
            scene = self.encode(media, cancel=cancel)
            return with_notes(run([scene], [texts])[0], scene.notes)

        def run_part(part: Sequence[tuple[Any, Any]]) -> list[Any]:
            scenes = self._encode_part([medium for medium, _ in part], cancel)
            good = [(s, text) for s, (_, text) in zip(scenes, part) if isinstance(s, Scene)]
            found = iter(together(lambda items: run(*zip(*items, strict=True)), good))
            return [
                with_notes(next(found), scene.notes) if isinstance(scene, Scene) else scene
                for scene in scenes
            ]

        pairs = list(zip(media, spread(texts, len(media), several), strict=True))
        return in_parts(run_part, pairs, self.batch_size, self._workers)

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

    @property
    def feature_size(self) -> int:
        """Width E of `image_features` and `text_features`."""
        return self._member("match", "contrastive").model.config.projection_size

    @gpu_memory()
    def image_features(self, scene: Any, *, cancel: Cancel | None = None) -> np.ndarray:
        """Contrastive features of an image or video, float32 (E,), L2-normalised; their product
        with `text_features` is the cosine of `match`."""
        member = self._member("match", "contrastive")

        @torch.no_grad()
        def run(scenes, _):
            embeds = whole_embeds(scenes, member, cancel).float()
            return list(member.model.image_features(embeds).cpu().numpy())

        return self._each(run, scene, cancel=cancel)

    @gpu_memory()
    @torch.no_grad()
    def text_features(self, text: str) -> np.ndarray:
        """Contrastive features of a text, see `image_features`."""
        member = self._member("match", "contrastive")
        embeds, _ = encode_texts(member, [member.processor.tokenize(text)])
        return member.model.text_features(embeds.float())[0].cpu().numpy()

    def batch(
        self,
        task: str,
        texts: Any = None,
        *,
        image: str = "image",
        text: str | None = None,
        **options: Any,
    ) -> ColumnFunction:
        """A function of columns for `datasets.Dataset.map(..., batched=True)` and its like.

        Args:
            task: `caption`, `answer`, `ground` or `match`.
            texts: what is asked of every image; `text` is the column that holds it instead.
            image: the column of images, paths or bytes.
            options: of the method.
        """
        return ColumnFunction(self, task, image, text, texts, options)

    def _judge(
        self, look: Callable[[Member], tuple[Tensor, ...]], cancel: Cancel | None
    ) -> Callable[[list[list[str]]], list[tuple[Match, ...]]] | None:
        """A function that matches what other models say of each image; None where no model has the
        matching head. `look` gives the image embeddings of the judging model, and the patches of
        regions."""
        judge = self._serving.get("match")
        if judge is None or "matching" not in judge.model.config.heads:
            return None
        return lambda texts: match_texts(judge, texts, *look(judge), cancel=cancel)

    def check_text(self, text: str, task: str = "match") -> X2VLMError | None:
        """Why the model for a task cannot read a text, None if it can."""
        found = attempt(self._member(task).processor.tokenize, text)
        return found if isinstance(found, X2VLMError) else None

    def require(self, task: str) -> None:
        """Raises:
        CheckpointError: no model can do the task (`ckpt/keys`).
        """
        self._member(task)

    def _member(self, task: str, *heads: str) -> Member:
        """The model for a task that has all of these heads; `CheckpointError` without one."""
        if task in self.missing:
            raise CheckpointError(
                f"{self.missing[task]} Choose a checkpoint that was trained for it.", "ckpt/keys"
            )
        member = self._serving[task]
        member.model.require(*heads)
        return member
