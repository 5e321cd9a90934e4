"""Visual question answering with the answer decoder; several questions of a picture or clip at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from train.data.transforms import may_flip, normalize
from train.tasks.records import RecordTask, choose_exactly
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering


@dataclass(kw_only=True)
class QuestionAnswering(RecordTask):
    """Questions with weighted answers; a picture is mirrored only if no question or answer names a side.

    Attributes:
        batch_size: pictures.
        questions_per_image: texts learnt from one encoding of the picture.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("answer_loss",)

    questions_per_image: int = 1

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records[index]
        questions = choose_exactly(record["questions"], self.questions_per_image, rng)
        answers = [question.get("answers") or {question["answer"]: 1.0} for question in questions]
        mirrors = self.augmentation != "none"
        texts = [question["question"] for question in questions] + [text for choices in answers for text in choices]
        return {
            "visual": self.pixels(record, rng, flip=mirrors and may_flip(texts, rng)),
            "questions": [self.texts.encode(question["question"]) for question in questions],
            "answers": [[(self.texts.encode(text), weight) for text, weight in choices.items()] for choices in answers],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        questions = self.texts.collate([question for sample in samples for question in sample["questions"]])
        per_question = [choices for sample in samples for choices in sample["answers"]]
        answers = self.texts.collate([text for choices in per_question for text, _ in choices])
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "question_ids": questions["input_ids"],
            "question_mask": questions["attention_mask"],
            "answer_ids": answers["input_ids"],
            "answer_mask": answers["attention_mask"],
            "answer_weights": torch.tensor([weight for choices in per_question for _, weight in choices]),
            "answers_per_question": torch.tensor([len(choices) for choices in per_question]),
        }

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        return X2VLMForQuestionAnswering(model)(**batch).losses
