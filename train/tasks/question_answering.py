"""Visual question answering with the answer decoder; several questions of an image or video at a
time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from train.data.json_text import read_json_list
from train.data.records import DataConfig, TestRecords
from train.data.text import EncodedText
from train.data.transforms import may_flip
from train.metrics.answers import best_answer, normalize_answer, soft_accuracy, unlisted
from train.tasks.records import RecordTask, choose_exactly, device_of, owned
from x2vlm.errors import DataError
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize

ASKED = ("question_id", "question")
"""What a prediction repeats of a question."""


@dataclass(kw_only=True)
class QuestionAnswering(RecordTask):
    """Questions with weighted answers; an image is mirrored only if no question or answer names a
    side.

    Attributes:
        batch_size: images.
        questions_per_image: texts learnt from one encoding of the image.
        answer_list: JSON file with the list of answers to rank in evaluation; empty for the answers
            of the sticker world.
        ranked: K, how many answers are scored in full.
    """

    all_losses = X2VLMForQuestionAnswering.loss_names
    needs = ("image|frames", "questions")
    rules = "question"

    questions_per_image: int = 1
    answer_list: str = ""
    ranked: int = 128

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        questions = choose_exactly(record["questions"], self.questions_per_image, rng)
        answers = [_answers(question) for question in questions]
        mirrors = self.augmentation != "none"
        texts = [question["question"] for question in questions] + [
            text for choices in answers for text in choices
        ]
        return {
            "visual": self.pixels(record, rng, flip=mirrors and may_flip(texts, rng)),
            "questions": [self.encode(question["question"]) for question in questions],
            "answers": [
                [(self.encode_answer(text), weight) for text, weight in choices.items()]
                for choices in answers
            ],
        }

    def encode_answer(self, text: str) -> EncodedText:
        """Raises `DataError` when the answer has more tokens than the decoder has positions."""
        most = self.processor.config.decoder.max_positions
        answer = self.texts.encode(text, None, max_tokens=most + 1)
        if len(answer.ids) > most:
            raise DataError(
                f"The answer {text[:40]!r} is longer than the {most} tokens that the decoder "
                f"reads.",
                "data/text",
            )
        return answer

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        questions = self.texts.collate(
            [question for sample in samples for question in sample["questions"]]
        )
        per_question = [choices for sample in samples for choices in sample["answers"]]
        answers = self.texts.collate([text for choices in per_question for text, _ in choices])
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "question_ids": questions["input_ids"],
            "question_mask": questions["attention_mask"],
            "answer_ids": answers["input_ids"],
            "answer_mask": answers["attention_mask"],
            "answer_weights": torch.tensor(
                [weight for choices in per_question for _, weight in choices]
            ),
            "answers_per_question": torch.tensor([len(choices) for choices in per_question]),
        }

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        return X2VLMForQuestionAnswering(model)(**batch).losses

    def open_data(self, sources: Iterable[DataConfig] | None = None) -> None:
        super().open_data(sources)
        self.candidates()

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`accuracy`: exact match, or the soft accuracy of VQA where a question has the
        `annotations` of several people; both of normalised answers."""
        scores, accepted = [], []
        answer = self._answerer(model)
        for group in records.batches(16):
            owners, questions = owned(group, lambda record: record["questions"])
            said: list[list[dict[str, Any]]] = [[] for _ in group]
            for owner, question, given in zip(
                owners, questions, answer(group, owners, questions), strict=True
            ):
                about = {key: question[key] for key in ASKED if key in question}
                said[owner].append(about | {"answer": given})
                if "answers" in question or "answer" in question:
                    right = question.get("annotations") or [best_answer(_answers(question))]
                    scores.append(_score(question, given))
                    accepted.append(right)
                    said[owner][-1] |= {"right": right, "score": scores[-1]}
            for record, answers in zip(group, said, strict=True):
                values = [answer["score"] for answer in answers if "score" in answer]
                mean = {"score": sum(values) / len(values)} if values else {}
                records.predict(record, answers=answers, **mean)
        scores, accepted = map(records.gather, (scores, accepted))
        if not scores:
            records.note("The questions have no answers: there are predictions and no accuracy.")
            return {}
        if lost := unlisted(accepted, self.candidates()):
            records.note(lost)
        return {"accuracy": sum(scores) / len(scores)}

    def _answerer(self, model: X2VLM) -> Callable[..., list[str]]:
        """A function of records, the record of each question, and questions: the best answers."""
        task, candidates = X2VLMForQuestionAnswering(model), self.candidates()
        fields = self.texts.collate([self.encode_answer(answer) for answer in candidates])
        answer_ids, answer_mask = (
            fields[key].to(device_of(model)) for key in ("input_ids", "attention_mask")
        )

        def answer(group, owners, questions) -> list[str]:
            embeds, found = self.see(model, group), []
            for start in range(0, len(questions), 64):
                part = slice(start, start + 64)
                _, mask, text_embeds = self.read(
                    model, [question["question"] for question in questions[part]]
                )
                states = model.fuse(text_embeds, mask, embeds[owners[part]])
                ranks = task.rank_answers(states, mask, answer_ids, answer_mask, self.ranked)[0]
                found += [candidates[index] for index in ranks[:, 0].tolist()]
            return found

        return answer

    def candidates(self) -> list[str]:
        """The answers that are ranked. Raises `DataError` when the list is none of texts."""
        if self.answer_list:
            answers = read_json_list(self.answer_list)
            for number, answer in enumerate(answers, start=1):
                if not isinstance(answer, str) or not answer.strip():
                    raise DataError(
                        f"{self.answer_list}, entry {number}: the answer is no text.", "data/text"
                    )
            if not answers:
                raise DataError(f"{self.answer_list} has no answers.", "data/empty")
            return answers
        from x2vlm.stickers import ANSWERS

        return list(ANSWERS)


def _answers(question: dict[str, Any]) -> dict[str, float]:
    """Right answers and their weights. Raises `DataError` for a question without any."""
    if "answers" not in question and "answer" not in question:
        raise DataError("The question has no answer to learn.", "data/entry")
    return question.get("answers") or {question["answer"]: 1.0}


def _score(question: dict[str, Any], given: str) -> float:
    if "annotations" in question:
        return soft_accuracy(given, question["annotations"])
    return float(normalize_answer(given) == best_answer(_answers(question)))
