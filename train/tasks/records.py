"""What all our tasks share: records in, texts encoded, pictures augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.data.masking import MaskingConfig
from train.data.records import DataConfig, open_records
from train.data.text import EncodedText, TextEncoder
from train.data.transforms import Augmentation, augment
from train.data.video import sample_frame_indices
from train.tasks.base import Task


@dataclass(kw_only=True)
class RecordTask(Task):
    """A task over records (see `train.data.records`).

    Attributes:
        data: what is trained on.
        max_tokens: longest text, [CLS] and [SEP] included.
        augmentation: see `train.data.transforms.Augmentation`.
    """

    data: DataConfig
    max_tokens: int = 40
    augmentation: Augmentation = "none"

    def prepare(self, processor: Any) -> None:
        self.processor = processor
        self.image_size = processor.config.vision.image_size
        self.num_frames = processor.config.num_frames
        self.texts = TextEncoder(processor.tokenizer, self.max_tokens, self.text_masking())
        self.records = open_records(self.data, self.image_size)

    def text_masking(self) -> MaskingConfig | None:
        """How texts are masked for masked LM; None for not at all."""
        return None

    def __len__(self) -> int:
        return len(self.records)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        # Sticker scenes are random already, and curricula and echoes need them as they come.
        return np.arange(len(self)) if self.data.stickers else super().order(rng)

    def fingerprint(self) -> str:
        return repr(self.data) if self.data.stickers else self.records.fingerprint()

    def pixels(self, record: dict[str, Any], rng: np.random.Generator, flip: bool | None = None) -> Tensor:
        """uint8 (3, S, S) of a picture, (F, 3, S, S) of a clip; `flip` None leaves the coin to the augmentation."""
        if "frames" not in record:
            return augment(record["image"], self.image_size, self.augmentation, rng, flip)
        if flip is None:
            flip = self.augmentation in ("pretrain", "train") and bool(rng.random() < 0.5)
        chosen = sample_frame_indices(len(record["frames"]), self.num_frames, rng)
        frames = [augment(record["frames"][i], self.image_size, self.augmentation, rng, flip) for i in chosen]
        return torch.stack(frames)


def choose(items: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` of the items in random order, all of them if there are fewer."""
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def choose_exactly(items: Sequence, count: int, rng: np.random.Generator) -> list:
    """`count` of the items in random order; some come again if there are fewer. `items` must not be empty."""
    chosen = choose(items, count, rng)
    return [chosen[i % len(chosen)] for i in range(count)]


def text_keys(texts: Sequence[EncodedText]) -> Tensor:
    """int64 (N,): equal numbers for equal texts."""
    return torch.tensor([text.key for text in texts], dtype=torch.long)
