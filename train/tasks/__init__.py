"""The training tasks by the word that `type` takes in a run's YAML; each is imported only when a
run names it."""

from __future__ import annotations

from importlib import import_module

from train.tasks.base import Task
from x2vlm.errors import ConfigError

TASKS: dict[str, str] = {
    "image_text": "train.tasks.image_text:ImageText",
    "video_text": "train.tasks.image_text:ImageText",
    "region_text": "train.tasks.region_text:RegionTextTask",
    "text": "train.tasks.text:MaskedText",
    "parallel_text": "train.tasks.text:ParallelText",
    "captioning": "train.tasks.captioning:Captioning",
    "question_answering": "train.tasks.question_answering:QuestionAnswering",
    "grounding": "train.tasks.grounding:Grounding",
    "retrieval": "train.tasks.retrieval:Retrieval",
    "matching": "train.tasks.matching:Matching",
    "pair_reasoning": "train.tasks.pair_reasoning:PairReasoning",
    "dense_boxes": "train.tasks.dense_boxes:DenseBoxes",
    "photos": "train.tasks.photos:Photos",
    "scene": "train.tasks.scene:Scene",
    "classification": "train.tasks.classification:Classification",
    "multiple_choice": "train.tasks.multiple_choice:MultipleChoice",
    "attributes": "train.tasks.attributes:Attributes",
    "self_critical": "train.tasks.self_critical:SelfCritical",
    "text_assignment": "train.tasks.text_assignment:TextAssignment",
}
"""Task type -> `module:Class`."""


def task_class(kind: str) -> type[Task]:
    """The class of a task type.

    Raises:
        ConfigError: no such type (`config/value`).
    """
    if kind not in TASKS:
        raise ConfigError(
            f"Unknown task type {kind!r}. Known types: {', '.join(sorted(TASKS))}.", "config/value"
        )
    module, name = TASKS[kind].split(":")
    return getattr(import_module(module), name)
