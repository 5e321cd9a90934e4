"""The entries of annotation files and shards as records by index; every complaint names file and
line, or shard and key."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from train.data.entries import Entries, Shard, open_entries
from train.data.formats import BY_IMAGE, captions_of, image_id, record_format
from train.data.remote import Place, expand, file_size
from x2vlm.errors import DataError, X2VLMError


class FileRecords(Sequence):
    """The entries of files as records.

    Args:
        files: paths or patterns; each must match something.
        media: folder of the images; "" for the folder of the annotation file.
        format: a key of `train.data.formats.FORMATS`.
        keys: our word -> the word of the files, for example {"caption": "desc", "image": "binary"}.

    Attributes:
        left_out: what is read without: what is wrong with it -> its share of all bytes. Damaged
            shards, and members of shards that belong to no sample (share 0).

    Raises:
        DataError: a file is missing, unreadable or without entries, every shard is damaged, or the
            format is unknown.
    """

    def __init__(
        self,
        files: Sequence[str],
        media: str = "",
        format: str = "image_text",
        keys: dict[str, str] | None = None,
    ):
        self.to_record = record_format(format)
        self.by_image = format in BY_IMAGE
        self.keys = keys or {}
        self.files, self.left_out = open_all(expand(files), media)
        self.left_out |= passed_over(self.files)
        self.starts = np.cumsum([0, *map(len, self.files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record; with an `image_id` that is equal for entries of one image or video, unless it
        has none or several. Raises `X2VLMError` when the entry cannot be used, naming it."""
        file, place = self._find(index)
        with _naming(file, place):
            entry = self._entry(file, place)
            record = self.to_record(entry, file)
            shown = image_id(entry, file)
            return record if shown is None else {"image_id": shown} | record

    def groups(self) -> list[tuple[int, ...]]:
        """Indices of the entries that are measured as one record: those of one image
        or video where the format has several entries of one, in the order of their first ones.
        Reads the texts of all entries."""
        if not self.by_image:
            return [(index,) for index in range(len(self))]
        groups: dict[Any, list[int]] = {}
        for index in range(len(self)):
            file, place = self._find(index)
            try:
                with _naming(file, place):
                    shown = image_id(self._entry(file, place), file)
            except X2VLMError:  # told when the record is read
                shown = None
            groups.setdefault(index if shown is None else str(shown), []).append(index)
        return [tuple(group) for group in groups.values()]

    def captions(self) -> Iterator[list[str]]:
        """The captions of every entry that has readable ones; images are not opened."""
        for index in range(len(self)):
            file, place = self._find(index)
            with contextlib.suppress(X2VLMError), _naming(file, place):
                yield captions_of(self._entry(file, place))

    def name(self, index: int) -> str:
        """File and line, or shard and key."""
        file, place = self._find(index)
        return file.name(place)

    def _entry(self, file: Entries, place: int) -> dict[str, Any]:
        entry = file.entry(place)
        renamed = {ours: entry[theirs] for ours, theirs in self.keys.items() if theirs in entry}
        return entry | renamed

    def _find(self, index: int) -> tuple[Entries, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.files[number], index - int(self.starts[number])

    def fingerprint(self) -> str:
        """Changes with names, sizes and numbers of entries."""
        about = [(file.path.name, file_size(file.path), len(file)) for file in self.files]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _naming(file: Entries, place: int) -> Iterator[None]:
    """Whatever goes wrong with an entry becomes an `X2VLMError` that begins with its name."""
    try:
        yield
    except KeyError as error:
        said, code = f"the entry has no {error.args[0]!r}.", "data/key"
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        said, code = f"the entry is not as the format wants it ({error}).", "data/entry"
    except OSError as error:  # the file was there when the run began
        said, code = f"the file cannot be read now ({error.strerror}).", "data/missing"
    except X2VLMError as error:
        raise type(error)(f"{file.name(place)}: {error.message}", error.code) from None
    else:
        return
    raise DataError(f"{file.name(place)}: {said}", code)


def open_all(paths: Sequence[Place], media: str) -> tuple[list[Entries], dict[str, float]]:
    """The files, and those that are damaged shards as `FileRecords.left_out`. Raises `DataError`
    for anything else."""
    with ThreadPoolExecutor(16) as pool:  # servers answer several at a time
        size = sum(pool.map(file_size, paths))
        opened = list(pool.map(lambda path: _open_or_error(path, media), paths))
    files, damaged = [], {}
    for path, entries in zip(paths, opened, strict=True):
        if isinstance(entries, Entries):
            files.append(entries)
        elif entries.code == "data/shard":
            damaged[entries.message] = file_size(path) / size
        else:
            raise entries
    if not files:
        raise DataError(next(iter(damaged)), "data/shard")
    return files, damaged


def _open_or_error(path: Place, media: str) -> Entries | DataError:
    try:
        return open_entries(path, media)
    except DataError as error:
        return error


def passed_over(files: Sequence[Entries]) -> dict[str, float]:
    """One sentence about the members of shards that belong to no sample, as
    `FileRecords.left_out`."""
    found = [
        f"{file.path.name}, {name}"
        for file in files
        if isinstance(file, Shard)
        for name in file.tar.passed_over
    ]
    if not found:
        return {}
    said = f"Members of shards that are hidden or have no suffix: {len(found)}, such as {found[0]}."
    return {said: 0.0}
