"""What all our tasks share: records in, texts encoded, images augmented."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from train.data.masking import MaskingConfig
from train.data.records import (
    DataConfig,
    TestRecords,
    check_readable,
    open_records,
    read_record,
)
from train.data.text import EncodedText, TextEncoder, text_key
from train.data.transforms import Augmentation, augment
from train.data.video import sample_frame_indices, take
from train.tasks.base import Task
from x2vlm.config import sides
from x2vlm.errors import ConfigError, DataError, X2VLMError
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import Processor, normalize, to_pixels
from x2vlm.stickers import WORLD_VERSION

VALIDATION_BATCH = 64
PROBE_SIZE = 64
"""Side of the images that are cut from photos before the model is known."""


@dataclass(kw_only=True)
class RecordTask(Task):
    """A task over records (see `train.data.records`).

    Attributes:
        data: what is trained on.
        max_tokens: longest text, [CLS] and [SEP] included; a question is cut by words instead,
            see `x2vlm.processing.Processor.tokenize`.
        augmentation: see `train.data.transforms.Augmentation`.
        validation: data by a name of one's own, measured while training; choose checkpoints by
            them.
        test: the same for `python -m train.evaluate`; look at them once.
    """

    needs: ClassVar[tuple[str, ...]] = ("image|frames", "captions")
    """What a record must hold, see `train.data.records.read_record`."""
    rules: ClassVar[str] = "caption"
    """How texts that are read are cleaned, see `x2vlm.processing.Processor.tokenize`."""

    data: DataConfig
    max_tokens: int = 40
    augmentation: Augmentation = "none"
    validation: dict[str, DataConfig] = field(default_factory=dict)
    test: dict[str, DataConfig] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        self._opened: dict[int, Sequence[dict[str, Any]]] = {}

    def open_data(self, sources: Iterable[DataConfig] | None = None) -> None:
        """As for every task; `sources` are the data to open, None for those of training."""
        for data in (self.data, *self.validation.values()) if sources is None else sources:
            if data.stickers is not None:
                continue
            records = open_records(data, PROBE_SIZE)
            check_readable(records, self.needs)
            if data.files:  # photos are cut to the size of the model's images, not known yet
                self._opened[id(data)] = records

    def _records(self, data: DataConfig) -> Sequence[dict[str, Any]]:
        return self._opened.pop(id(data), None) or open_records(data, max(sides(self.image_size)))

    def prepare(self, processor: Any) -> None:
        self.prepare_texts(processor)
        self.records = self._records(self.data)
        self.validation_records = {
            name: self.open_test(data) for name, data in self.validation.items()
        }

    def open_test(
        self, data: DataConfig, limit: int | None = None, workers: int = 0
    ) -> TestRecords:
        """Data to measure on. Raises `DataError` for any file that cannot be used."""
        records = self._records(data)
        tested = TestRecords(records, limit, workers, self.needs, self.num_frames)
        for problem, share in records.left_out.items():
            if share:
                raise DataError(problem, "data/shard")
            tested.note(problem)
        return tested

    def prepare_texts(self, processor: Any) -> None:
        """What reading needs besides the data; enough for `measure`.

        Raises:
            ConfigError: `max_tokens` is more than the text encoder reads (`config/value`).
        """
        text = processor.config.text
        if self.max_tokens > text.max_tokens:
            raise ConfigError(
                f"max_tokens is {self.max_tokens}; this text encoder reads {text.max_tokens} at "
                f"most.",
                "config/value",
            )
        self.processor = Processor(processor.config, processor.tokenizer, self.max_tokens)
        self.image_size = processor.config.vision.image_size
        self.num_frames = processor.config.num_frames
        self.texts = TextEncoder(self.processor, self.text_masking())

    def text_masking(self) -> MaskingConfig | None:
        """How texts are masked for masked LM; None for not at all."""
        return None

    def __len__(self) -> int:
        return len(self.records)

    def left_out(self) -> dict[str, float]:
        return self.records.left_out

    def record(self, index: int) -> dict[str, Any]:
        """A training record. Raises `DataError` that names it."""
        return read_record(self.records, index, self.needs)

    def image_key(self, index: int, record: dict[str, Any]) -> int:
        """Equal for training records of one image or video: see `positive_pairs`."""
        shown = f"image {record['image_id']}" if "image_id" in record else f"record {index}"
        return text_key(shown)

    def region_key(self, index: int, record: dict[str, Any], box: Sequence[float] | None) -> int:
        """Equal for texts of one region of one image."""
        return text_key(f"{self.image_key(index, record)} {box}")

    def order(self, rng: np.random.Generator) -> np.ndarray:
        # Sticker scenes are random already, and curricula and echoes need them as they come.
        return np.arange(len(self)) if self.data.stickers else super().order(rng)

    def fingerprint(self) -> str:
        return (
            f"{self.data!r}, world {WORLD_VERSION}"
            if self.data.stickers
            else self.records.fingerprint()
        )

    def encode(self, text: str, rng: np.random.Generator | None = None) -> EncodedText:
        """A text that is read, not written, as tokens; masked with `rng` if the task masks."""
        return self.texts.encode(text, self.rules, rng)

    def pixels(
        self, record: dict[str, Any], rng: np.random.Generator, flip: bool | None = None
    ) -> Tensor:
        """uint8 (3, S, S) of an image, (F, 3, S, S) of a video; with `flip` None the
        augmentation draws whether to mirror."""
        if "frames" not in record:
            return augment(record["image"], self.image_size, self.augmentation, rng, flip)
        if flip is None:
            flip = self.augmentation in ("pretrain", "train") and bool(rng.random() < 0.5)
        chosen = sample_frame_indices(len(record["frames"]), self.num_frames, rng)
        frames = [
            augment(frame, self.image_size, self.augmentation, rng, flip)
            for frame in take(record["frames"], chosen)
        ]
        return torch.stack(frames)

    def evaluate(self, model: X2VLM) -> dict[str, float]:
        return {
            f"{name}_{key}": value
            for name, records in self.validation_records.items()
            for key, value in (
                self.measure(model, records) | self.validation_losses(model, records)
            ).items()
        }

    def validation_losses(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """Means of the training losses over whole batches of other records, not augmented; equal
        draws in every evaluation.

        A contrastive loss depends on the size of its batch, here at most `VALIDATION_BATCH`.
        """
        reader = copy.copy(self)
        reader.records, reader.augmentation = records, "none"
        size = min(self.batch_size, VALIDATION_BATCH, len(records))
        found: dict[str, list[float]] = {}
        with torch.random.fork_rng(devices=()):
            # Hard negatives are drawn here; a training step seeds all generators anew.
            torch.manual_seed(0)
            samples = []
            for index in range(len(records)) if self.loss_weights else ():
                try:
                    samples.append(reader.sample(index, np.random.default_rng(index)))
                except X2VLMError as error:
                    records.leave_out(error)
                # Too few records could be read for one whole batch.
                last = index == len(records) - 1 and samples and not found
                if len(samples) == size or last:
                    losses = self.training_step(
                        model, send_to_device(self.collate(samples), device_of(model))
                    )
                    for name in self.loss_weights:
                        found.setdefault(name, []).append(losses[name].item())
                    samples = []
        return {name: sum(values) / len(values) for name, values in found.items()}

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """The task's metrics on some records; {} for a task that has none of its own."""
        return {}

    def see(self, model: X2VLM, records: Sequence[dict[str, Any]]) -> Tensor:
        """image_embeds float (N, P, D) of images, or of videos of equal length, as at inference."""
        visual = [self.views(record) for record in records]
        return model.encode_visual(normalize(torch.stack(visual).to(device_of(model))))

    def views(self, record: dict[str, Any]) -> Tensor:
        """What inference sees of a record: uint8 (3, S, S), or (F, 3, S, S) for a video."""
        if "frames" not in record:
            return to_pixels(record["image"], self.image_size)
        chosen = sample_frame_indices(len(record["frames"]), self.num_frames)
        frames = take(record["frames"], chosen)
        return torch.stack([to_pixels(frame, self.image_size) for frame in frames])

    def read(self, model: X2VLM, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """`input_ids`, `attention_mask` and text_embeds of some texts on the model's device."""
        fields = self.texts.collate([self.encode(text) for text in texts], masked=False)
        input_ids, attention_mask = (
            fields[key].to(device_of(model)) for key in ("input_ids", "attention_mask")
        )
        return input_ids, attention_mask, model.encode_text(input_ids, attention_mask)


def device_of(model: X2VLM) -> torch.device:
    return next(model.parameters()).device


def choose(items: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` of the items in random order, all of them if there are fewer."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def choose_exactly(items: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` of the items in random order; some come again if there are fewer. `items` must not be
    empty."""
    chosen = choose(items, count, rng)
    return [chosen[i % len(chosen)] for i in range(count)]


def positive_pairs(shown: Sequence[int], texts: Sequence[EncodedText], equal_texts=True) -> Tensor:
    """int64 (N, 2), the `positives` of the losses: rows whose texts are of the same image (an equal
    number in `shown`) or, with `equal_texts`, have the same words are no negatives of each
    other."""
    words = [text.key for text in texts] if equal_texts else shown
    return torch.tensor([shown, words], dtype=torch.long).T.contiguous()


def owned(
    records: Sequence[dict[str, Any]], texts_of: Callable[[dict[str, Any]], Sequence]
) -> tuple[list[int], list]:
    """All texts of some records in one list, and for each the index of its record."""
    pairs = [(owner, text) for owner, record in enumerate(records) for text in texts_of(record)]
    return [owner for owner, _ in pairs], [text for _, text in pairs]
