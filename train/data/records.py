"""Where records come from. A record is a dict with what is known of one sample; each task takes the keys that it needs:

image          PIL picture            captions    [text], all of them true of the whole picture
frames         [PIL], one clip        regions     [{text, box}], box (cx, cy, w, h) as fractions of the sides
images         [PIL, PIL], a pair     questions   [{question, answers: {text: weight}}]
statement      text about a pair      label       whether the statement is true, or a class index
image_id       equal for equal images absent      [text], phrases that are not true of the picture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from train.data.stickers import StickerData, StickerRecords
from x2vlm.errors import ConfigError


@dataclass(kw_only=True)
class DataConfig:
    """Either the sticker world or files.

    Attributes:
        stickers: scenes drawn on the fly.
        files: annotation files (`.jsonl`, `.json`) or WebDataset shards (`.tar`); a pattern such as `shards/*.tar` names
            several.
        media: folder that relative picture paths start from; empty for the folder of the annotation file.
        format: how an entry of the files is read, a key of `train.data.formats.FORMATS`.
        keys: our word -> the word of the files, for example {caption: desc, image: binary}.
    """

    stickers: StickerData | None = None
    files: list[str] = field(default_factory=list)
    media: str = ""
    format: str = "image_text"
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if (self.stickers is None) == (not self.files):
            raise ConfigError("Data come either from `stickers` or from `files`; give exactly one of them.", "config/value")


def open_records(config: DataConfig, image_size: int) -> Sequence[dict[str, Any]]:
    """The records, by index.

    Raises:
        DataError: a file is missing, empty or unreadable; the message names it.
    """
    if config.stickers is not None:
        return StickerRecords(config.stickers, image_size)
    from train.data.files import FileRecords

    return FileRecords(config.files, config.media, config.format, config.keys)


class TestRecords(Sequence):
    """The first `limit` records, all if None, read by `workers` processes (0: this one)."""

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(self, records: Sequence[dict[str, Any]], limit: int | None = None, workers: int = 0):
        self.records, self.workers = records, workers
        self.size = min(limit or len(records), len(records))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.records[range(self.size)[index]]  # a loop over all ends by the IndexError of the range

    def batches(self, size: int) -> DataLoader:
        """Consecutive lists of at most `size` records."""
        return DataLoader(self, batch_size=size, collate_fn=list, num_workers=self.workers)
