"""Collections of images and videos: files, folders, patterns, tables, WebDataset shards and lists.

Everything that can be wrong with a collection as a whole is told when it is opened, before a model
is loaded; what is wrong with one item is that item's own error.
"""

from __future__ import annotations

import csv
import glob
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from x2vlm.errors import DataError, MediaError

MEDIA_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"),
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
}
"""What is taken from folders and shards; a file that is named is opened whatever it is called."""
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
CLOUD = ("s3://", "gs://", "az://", "hdfs://", "http://", "https://")
PARQUET_SUFFIXES = (".parquet",)
BY_RAY = ("parquet", "cloud")
"""Kinds of files that this process does not read itself."""


@dataclass(frozen=True)
class Item:
    """One image or video of a collection.

    Attributes:
        id: unique in the collection and equal in every run.
        media: path or bytes; the error where the item cannot even be named.
        texts: its own questions or phrases, from a column; None where all items share them.
    """

    id: str
    media: str | bytes | MediaError
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns of tables (or fields of a shard's JSON files) hold what; `text` None for no
    texts."""

    image: str = "image"
    text: str | None = None


class Collection:
    """Items in a fixed order; iterate as often as you like, but over standard input.

    Attributes:
        count: number of items, None where it is not known before the end.
    """

    def __init__(self, parts: Sequence[_Part]):
        self.parts = parts
        counts = [part.count for part in parts]
        self.count = None if None in counts else sum(counts)

    def __iter__(self) -> Iterator[Item]:
        for part in self.parts:
            yield from part


def is_collection(inputs: Sequence[str]) -> bool:
    """Whether inputs of the command line are more than one file."""
    if len(inputs) != 1:
        return True
    (name,) = inputs
    return (
        name == "-"
        or Path(name).is_dir()
        or name.lower().endswith((*TABLE_SUFFIXES, *SHARD_SUFFIXES, *PARQUET_SUFFIXES))
        or name.startswith(CLOUD)
        or (not Path(name).exists() and glob.has_magic(name))
    )


def open_collection(
    inputs: Sequence[str],
    columns: Columns | None = None,
    recursive: bool = False,
    stdin: TextIO | None = None,
) -> Collection:
    """The items of all inputs, one after the other.

    Raises:
        DataError: an input is missing, empty or lacks a column (`data/missing`, `data/column`), or
            only Ray can read it (`data/format`).
    """
    columns, parts = columns or Columns(), []
    for kind, names in list_inputs(inputs, recursive, stdin):
        if kind in BY_RAY or names[0].startswith(CLOUD):
            raise DataError(
                f"{names[0]} is read by Ray. Install it (pip install 'x2vlm[ray]') and add "
                "--engine ray.",
                "data/format",
            )
        single = {"table": _Table, "shard": _Shard}.get(kind)
        parts += [single(name, columns) for name in names] if single else [_Files(names, columns)]
    return Collection(parts)


def list_inputs(
    inputs: Sequence[str], recursive: bool, stdin: TextIO | None = None
) -> list[tuple[str, list[str]]]:
    """Folders, patterns and lists as the files that they name: pairs of a kind (`file`, `table`,
    `shard`, `parquet`, `cloud`) and files of that kind, in the order of the inputs.

    Raises:
        DataError: an input names no file (`data/missing`).
    """
    named = [one for name in inputs for one in _expanded(name, recursive, stdin or sys.stdin)]
    return [(kind, [name for _, name in some]) for kind, some in groupby(named, lambda one: one[0])]


def _expanded(name: str, recursive: bool, stdin: TextIO) -> list[tuple[str, str]]:
    """(kind, file) of all files that one input names."""
    path = Path(name)
    if name == "-":
        return [("file", line) for line in _lines(stdin)]
    if name.startswith(CLOUD):
        return [(_kind(name, "cloud"), name)]
    if path.is_dir():
        return [(_kind(file), file) for file in list_folder(path, recursive)]
    if not path.exists() and glob.has_magic(name):
        found = [one for one in sorted(glob.glob(name, recursive=True)) if Path(one).is_file()]
        if not found:
            raise DataError(f"No file fits the pattern {name}.", "data/missing")
        return [(_kind(file), file) for file in found]
    if not path.is_file():
        raise DataError(f"There is no file or folder {name}. Check its name.", "data/missing")
    return [(_kind(name), name)]


def _kind(name: str, other: str = "file") -> str:
    suffixes = {"table": TABLE_SUFFIXES, "shard": SHARD_SUFFIXES, "parquet": PARQUET_SUFFIXES}
    return next((kind for kind, some in suffixes.items() if name.lower().endswith(some)), other)


def list_folder(folder: Path, recursive: bool) -> list[str]:
    """The images and videos of a folder, sorted; of a folder without any its shards or Parquet
    files.

    Raises:
        DataError: there is none (`data/missing`).
    """
    paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
    for suffixes in (tuple(MEDIA_SUFFIXES), (*SHARD_SUFFIXES, *PARQUET_SUFFIXES)):
        files = [p.as_posix() for p in paths if p.name.lower().endswith(suffixes) and p.is_file()]
        if files:
            return files
    deeper = "" if recursive else " --recursive also looks into its folders."
    raise DataError(f"The folder {folder} holds no images or videos.{deeper}", "data/missing")


class _Part:
    count: int | None

    def __iter__(self) -> Iterator[Item]:
        raise NotImplementedError


class _Files(_Part):
    """Paths; with a text column it is told that files have none."""

    def __init__(self, paths: Sequence[str], columns: Columns):
        if columns.text is not None:
            raise DataError(
                f"Files have no column {columns.text!r}. Give a table or shards, or the texts "
                "themselves.",
                "data/column",
            )
        self.paths, self.count = paths, len(paths)

    def __iter__(self) -> Iterator[Item]:
        for path in self.paths:
            yield Item(path, path)


class _Table(_Part):
    """CSV, TSV or JSON lines; paths start from the folder of the table, and an item is named by the
    table and its row, from 1."""

    def __init__(self, name: str, columns: Columns):
        self.name, self.columns, self.count = name, columns, 0
        try:
            for row in self._rows():
                if not self.count:
                    self._check(row)
                self.count += 1
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{name} cannot be read: {error}.", "data/unreadable") from None
        if not self.count:
            raise DataError(f"{name} has no rows.", "data/missing")

    def _check(self, row: Any) -> None:
        wanted = [self.columns.image, *([self.columns.text] if self.columns.text else [])]
        missing = [column for column in wanted if not isinstance(row, dict) or column not in row]
        if missing:
            present = ", ".join(map(str, row)) if isinstance(row, dict) else "none"
            raise DataError(
                f"{self.name} has no column {missing[0]!r}; its columns: {present}. Name it with "
                f"{'--image-column' if missing[0] == self.columns.image else '--text-column'}.",
                "data/column",
            )

    def _rows(self) -> Iterator[dict[str, Any] | None]:
        """None for a row that is no JSON object."""
        with open(self.name, encoding="utf-8-sig", newline="") as file:
            if not self.name.lower().endswith((".csv", ".tsv")):
                for line in filter(str.strip, file):
                    try:
                        row = json.loads(line)
                    except ValueError:
                        row = None
                    yield row if isinstance(row, dict) else None
                return
            yield from csv.DictReader(
                file, delimiter="\t" if self.name.lower().endswith(".tsv") else ","
            )

    def __iter__(self) -> Iterator[Item]:
        folder = Path(self.name).parent
        for number, row in enumerate(self._rows(), start=1):
            name = f"{self.name}#{number}"
            image = (row or {}).get(self.columns.image)
            texts, known = texts_of(row or {}, self.columns.text)
            if not isinstance(image, str) or not image or not known:
                yield Item(name, unusable(name, self.columns), texts)
            else:
                yield Item(name, str(folder / image), texts)


class _Shard(_Part):
    """A WebDataset tar: files of one name belong together; texts stand in its `.json`."""

    count = None

    def __init__(self, name: str, columns: Columns):
        self.name, self.columns = name, columns
        first = next(iter(self._samples()), None)
        if first is None or not any(suffix in MEDIA_SUFFIXES for suffix in first[1]):
            raise DataError(
                f"{name} begins with no sample that has an image or video.", "data/missing"
            )
        if columns.text is not None and not texts_of(_fields(first[1]), columns.text)[1]:
            present = ", ".join(_fields(first[1])) or "no JSON"
            raise DataError(
                f"{name} has no field {columns.text!r} in its JSON; there is: {present}. Name it "
                "with --text-column.",
                "data/column",
            )

    def _samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Key and files by suffix."""
        key, files = None, {}
        try:
            with tarfile.open(self.name) as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    own = f"{folder}/{stem}" if folder else stem
                    if own != key and files:
                        yield key, files
                        files = {}
                    key, suffix = own, f".{suffix.lower()}"
                    if suffix in MEDIA_SUFFIXES or suffix == ".json":
                        files[suffix] = tar.extractfile(member).read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(
                f"{self.name} is no whole tar file ({error}).", "data/unreadable"
            ) from None
        if files:
            yield key, files

    def __iter__(self) -> Iterator[Item]:
        try:
            for key, files in self._samples():
                name = f"{self.name}/{key}"
                media = next((files[suffix] for suffix in files if suffix in MEDIA_SUFFIXES), None)
                texts, known = texts_of(_fields(files), self.columns.text)
                if media is None or not known:
                    yield Item(name, unusable(name, self.columns), texts)
                else:
                    yield Item(name, media, texts)
        except DataError as error:  # the rest of a shard that ends early
            yield Item(self.name, MediaError(error.message, error.code))


def _fields(files: dict[str, bytes]) -> dict[str, Any]:
    try:
        fields = json.loads(files.get(".json", b"{}"))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def texts_of(row: dict[str, Any], column: str | None) -> tuple[tuple[str, ...] | None, bool]:
    """The texts of a row, a text or a list of them, and whether it has what it should."""
    if column is None:
        return None, True
    value = row.get(column)
    texts = (value,) if isinstance(value, str) else value
    good = (
        isinstance(texts, Iterable)
        and not isinstance(texts, (str, bytes, dict))
        and all(isinstance(text, str) for text in texts)
        and len(list(texts)) > 0
    )
    return (tuple(texts), True) if good else (None, False)


def unusable(name: str, columns: Columns) -> MediaError:
    """The error of an item that lacks its image or texts."""
    need = "an image" if columns.text is None else f"an image and {columns.text!r}"
    return MediaError(f"{name}: this row does not have {need}.", "data/entry")


def _lines(stdin: TextIO) -> list[str]:
    paths = [line.strip() for line in stdin if line.strip()]
    if not paths:
        raise DataError("Standard input holds no paths. Write one a line.", "data/missing")
    return paths
