"""Where records come from. A record is a dict with what is known of one sample; each task takes the
keys that it needs:

    image          PIL image, upright RGB as `x2vlm.media` makes it
    frames         [PIL images], one video; those of a file are decoded when they are taken
    images         [PIL image, PIL image], a pair
    image_id       equal for records of one image or video, which are never negatives of each other
    captions       [text], all of them true of the whole image
    absent         [text], phrases that are not true of the image
    regions        [{text, box}], box (cx, cy, w, h) as fractions of the sides
    questions      [{question, answers: {text: weight}}]
    statement      text about a pair or an image
    label          whether the statement is true, or a class index
    choices        [text], answers of which `label` is right; `kinds` groups the questions
    attributes     [1, 0 or -1], whether the image has each of a list of attributes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader

from train.data.files import FileRecords
from train.data.photos import PhotoData, PhotoRecords
from train.data.stickers import StickerData, StickerRecords
from train.data.video import sample_frame_indices, take
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


LISTS = ("captions", "false_captions", "absent", "objects", "regions", "questions")
"""What a record may hold several of."""
ATTEMPTS = 20
"""Records that `check_readable` tries."""


def open_records(config: DataConfig, image_size: int = 0) -> Sequence[dict[str, Any]]:
    """The records, by index.

    Args:
        image_size: side of the square scenes that are drawn; files need none.

    Raises:
        DataError: a file is missing, empty or unreadable; the message names it.
    """
    if config.stickers is not None:
        return StickerRecords(config.stickers, image_size)
    if config.photos is not None:
        return PhotoRecords(config.photos, image_size)
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


def check_readable(records: Sequence[dict[str, Any]], needs: Sequence[str]) -> None:
    """Raises `DataError` (`data/unreadable`) when none of some records, spread over all, has what a
    task needs: a wrong folder or format, which is better told before a model is loaded."""
    problems = []
    for index in range(0, len(records), -(-len(records) // ATTEMPTS)):
        try:
            read_record(records, index, needs)
            return
        except X2VLMError as error:
            problems.append(str(error))
    raise DataError(
        f"None of {len(problems)} records that were tried can be read; the first: {problems[0]}",
        "data/unreadable",
    )


def merge(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Records of one image as one record with all that is said of it."""
    first, *others = records
    if not others:
        return first
    said = {
        name: [item for record in records for item in record.get(name, ())]
        for name in LISTS
        if any(name in record for record in records)
    }
    return first | said


def identified(record: dict[str, Any]) -> dict[str, Any]:
    """What says which record it is."""
    return {name: record[name] for name in ("sample", "image_id") if name in record}


class TestRecords(Sequence):
    """The first `limit` records, all if None, read by `workers` processes (0: this one). Entries of
    one image are one record, see `FileRecords.groups`.

    Attributes:
        needs: what every record must hold, see `read_record`.
        num_frames: frames of a video that are kept, those that inference sees; None for all.
        unreadable: what is wrong with the entries that were left out.
        notes: what else a reader of the metrics should know, a sentence each.
        share: (number of this process, number of processes) that measure together: each takes
            consecutive records and `gather` joins what they found.
        measured: records that the latest `batches` gave.
        predictions: what the model said of each of them, see `predict`.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        limit: int | None = None,
        workers: int = 0,
        needs: Sequence[str] = (),
        num_frames: int | None = None,
    ):
        self.records, self.workers, self.needs = records, workers, needs
        self.num_frames = num_frames
        self.groups = records.groups() if isinstance(records, FileRecords) else None
        found = len(records if self.groups is None else self.groups)
        self.size = min(limit or found, found)
        self.unreadable: list[str] = []
        self.notes: list[str] = []
        self.share = (0, 1)
        self.measured = 0
        self.predictions: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, problems = self._read(index)
        if record is None:
            raise problems[0]
        for problem in problems:
            self.leave_out(problem)
        return record

    def name(self, index: int) -> str:
        """Of the record: that of its first entry, or its number where entries have no names."""
        first = index if self.groups is None else self.groups[index][0]
        return self.records.name(first) if hasattr(self.records, "name") else f"record {first}"

    def _read(self, index: int) -> tuple[dict[str, Any] | None, list[X2VLMError]]:
        """A record, None if no entry of it can be read, and what is wrong with some entries."""
        index = range(self.size)[index]  # a loop over all ends by the IndexError of the range
        entries, problems = [], []
        for entry in (index,) if self.groups is None else self.groups[index]:
            try:
                record = read_record(self.records, entry, self.needs)
                entries.append(record if entries else self._with_frames(record))
            except X2VLMError as error:
                problems.append(error)
        return ({**merge(entries), "sample": self.name(index)} if entries else None), problems

    def _with_frames(self, record: dict[str, Any]) -> dict[str, Any]:
        if self.num_frames is None or "frames" not in record:
            return record
        frames = record["frames"]
        return record | {"frames": take(frames, sample_frame_indices(len(frames), self.num_frames))}

    def __getitems__(self, indices: Sequence[int]) -> list[tuple]:
        """What a DataLoader asks for; errors are values here, because its processes lose the type
        of an exception."""
        return [self._read(index) for index in indices]

    def batches(self, size: int) -> Iterator[list[dict[str, Any]]]:
        """Consecutive lists of at most `size` records; what cannot be read is left out and named.
        Each record has its name as `sample`.

        Raises:
            DataError: no record can be read (`data/unreadable`).
        """
        self.measured, self.predictions = 0, []
        rank, world = self.share
        mine = range(self.size * rank // world, self.size * (rank + 1) // world)
        loader = DataLoader(
            self, batch_size=size, sampler=mine, collate_fn=list, num_workers=self.workers
        )
        for group in loader:
            for _, problems in group:
                for problem in problems:
                    self.leave_out(problem)
            readable = [record for record, _ in group if record is not None]
            self.measured += len(readable)
            if readable:
                yield readable
        if not any(self.gather([self.measured])):
            raise DataError(
                f"No record can be read; the first: {self.gather(self.unreadable)[0]}",
                "data/unreadable",
            )

    def gather(self, values: Sequence[Any]) -> list[Any]:
        """What each process found of its share, in the order of the records; all processes call
        this together."""
        if self.share[1] == 1:
            return list(values)
        found: list[Any] = [None] * self.share[1]
        dist.all_gather_object(found, list(values))
        return [value for values in found for value in values]

    def join(self) -> None:
        """Makes predictions, problems and the number of measured records those of all
        processes."""
        self.predictions = self.gather(self.predictions)
        self.unreadable = list(dict.fromkeys(self.gather(self.unreadable)))
        self.measured = sum(self.gather([self.measured]))

    def predict(self, record: dict[str, Any], **said: Any) -> None:
        """Keeps what the model said of a record, in plain values of JSON."""
        self.predictions.append(identified(record) | said)

    def leave_out(self, error: X2VLMError) -> None:
        """Keeps and prints what is wrong with an entry, once."""
        if str(error) not in self.unreadable:
            self.unreadable.append(str(error))
            print(f"Unreadable record left out: {error}", flush=True)

    def note(self, text: str) -> None:
        """Keeps and prints a sentence about what is measured, once."""
        if text not in self.notes:
            self.notes.append(text)
            print(text, flush=True)
