"""Where records come from. A record is a dict with what is known of one sample; each task takes the
keys that it needs:

image          PIL image            captions    [text], all of them true of the whole image
frames         [PIL], one video        regions     [{text, box}], box (cx, cy, w, h) as fractions of
the sides images         [PIL, PIL], a pair     questions   [{question, answers: {text: weight}}]
statement      text about a pair      label       whether the statement is true, or a class index
image_id       equal for equal images absent      [text], phrases that are not true of the image
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader

from train.data.photos import PhotoData, PhotoRecords
from train.data.stickers import StickerData, StickerRecords
from x2vlm.errors import ConfigError, DataError, X2VLMError


@dataclass(kw_only=True)
class DataConfig:
    """The sticker world, photos or files.

    Attributes:
        stickers: scenes drawn on the fly.
        photos: views and mosaics of photos.
        files: annotation files (`.jsonl`, `.json`) or WebDataset shards (`.tar`); a pattern such as
            `shards/*.tar` names several.
        media: folder that relative image paths start from; empty for the folder of the annotation
            file.
        format: how an entry of the files is read, a key of `train.data.formats.FORMATS`.
        keys: our word -> the word of the files, for example {caption: desc, image: binary}.
    """

    stickers: StickerData | None = None
    photos: PhotoData | None = None
    files: list[str] = field(default_factory=list)
    media: str = ""
    format: str = "image_text"
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if (self.stickers is not None) + (self.photos is not None) + bool(self.files) != 1:
            raise ConfigError(
                "Data come from `stickers`, `photos` or `files`; give exactly one of them.",
                "config/value",
            )


def open_records(config: DataConfig, image_size: int) -> Sequence[dict[str, Any]]:
    """The records, by index.

    Raises:
        DataError: a file is missing, empty or unreadable; the message names it.
    """
    if config.stickers is not None:
        return StickerRecords(config.stickers, image_size)
    if config.photos is not None:
        return PhotoRecords(config.photos, image_size)
    from train.data.files import FileRecords

    return FileRecords(config.files, config.media, config.format, config.keys)


def read_record(
    records: Sequence[dict[str, Any]], index: int, needs: Sequence[str]
) -> dict[str, Any]:
    """The record at `index`, with every key of `needs` in it (`a|b`: one of the two).

    Raises:
        DataError: it cannot be read, or lacks a key (`data/key`); the message names it.
    """
    record = records[index]
    for need in needs:
        if not any(key in record for key in need.split("|")):
            raise DataError(
                f"{records.name(index)}: there is no {need.replace('|', ' or ')}, which the task "
                f"needs, only {', '.join(record)}. See data.format.",
                "data/key",
            )
    return record


class TestRecords(Sequence):
    """The first `limit` records, all if None, read by `workers` processes (0: this one).

    Attributes:
        needs: what every record must hold, see `read_record`.
        unreadable: what is wrong with the records that were left out.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        limit: int | None = None,
        workers: int = 0,
        needs: Sequence[str] = (),
    ):
        self.records, self.workers, self.needs = records, workers, needs
        self.size = min(limit or len(records), len(records))
        self.unreadable: list[str] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(self.size)[index]  # a loop over all ends by the IndexError of the range
        return read_record(self.records, index, self.needs)

    def name(self, index: int) -> str:
        return self.records.name(index)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any] | X2VLMError]:
        """What a DataLoader asks for; errors are values here, because its processes lose the type
        of an exception."""
        found = []
        for index in indices:
            try:
                found.append(self[index])
            except X2VLMError as error:
                found.append(error)
        return found

    def batches(self, size: int) -> Iterator[list[dict[str, Any]]]:
        """Consecutive lists of at most `size` records; those that cannot be read are left out and
        named.

        Raises:
            DataError: no record can be read (`data/unreadable`).
        """
        for group in DataLoader(self, batch_size=size, collate_fn=list, num_workers=self.workers):
            for error in group:
                if isinstance(error, X2VLMError):
                    self.leave_out(error)
            readable = [record for record in group if not isinstance(record, X2VLMError)]
            if readable:
                yield readable
        if len(self.unreadable) == self.size:
            raise DataError(
                f"No record can be read; the first: {self.unreadable[0]}", "data/unreadable"
            )

    def leave_out(self, error: X2VLMError) -> None:
        """Notes and prints what is wrong with a record, once."""
        if str(error) not in self.unreadable:
            self.unreadable.append(str(error))
            print(f"Unreadable record left out: {error}", flush=True)
