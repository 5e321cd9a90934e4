"""Annotation files and WebDataset shards as records by index; every complaint names file and line
(or shard and key).

`.jsonl`: one entry a line, found by byte offset. `.json`: a list of entries. `.tar`: members with
one stem are an entry (`key.json` with its fields, `key.jpg` its image or `key.000.jpg`, ...
several, `key.txt` its caption). Opening reads every file once to find the entries; texts and images
are read when they are asked for, so a large corpus costs few bytes an entry.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from x2vlm.errors import DataError, X2VLMError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


class FileRecords(Sequence):
    """The entries of files as records.

    Args:
        files: paths or patterns; each must match something.
        media: folder of the images; "" for the folder of the annotation file.
        format: a key of `train.data.formats.FORMATS`.
        keys: our word -> the word of the files, for example {"caption": "desc", "image": "binary"}.

    Attributes:
        left_out: damaged shards, which are read without: what is wrong with each -> its share of
            all bytes.

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
        from train.data.formats import record_format

        self.to_record = record_format(format)
        self.keys = keys or {}
        self.files, self.left_out = open_all(expand(files), media)
        self.starts = np.cumsum([0, *map(len, self.files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises `X2VLMError` when the entry cannot be used, naming it."""
        file, place = self._find(index)
        try:
            entry = file.entry(place)
            entry |= {ours: entry[theirs] for ours, theirs in self.keys.items() if theirs in entry}
            return self.to_record(entry, file)
        except KeyError as error:
            raise DataError(
                f"{file.name(place)}: the entry has no {error.args[0]!r}.", "data/key"
            ) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{file.name(place)}: the entry is not as the format wants it ({error}).",
                "data/entry",
            ) from None
        except OSError as error:  # the file was there when the run began
            raise DataError(
                f"{file.name(place)}: the file cannot be read now ({error.strerror}).",
                "data/missing",
            ) from None
        except X2VLMError as error:
            raise type(error)(f"{file.name(place)}: {error.message}", error.code) from None

    def name(self, index: int) -> str:
        """File and line, or shard and key."""
        file, place = self._find(index)
        return file.name(place)

    def _find(self, index: int) -> tuple[Entries, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.files[number], index - int(self.starts[number])

    def fingerprint(self) -> str:
        """Changes with names, sizes and numbers of entries."""
        about = [(file.path.name, file.path.stat().st_size, len(file)) for file in self.files]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def expand(files: Sequence[str]) -> list[Path]:
    """Paths in the order given, patterns sorted by name. Raises `DataError` for what does not
    exist."""
    found: list[Path] = []
    for text in files:
        path = Path(text)
        matches = (
            sorted(path.parent.glob(path.name))
            if any(mark in path.name for mark in "*?[")
            else [path]
        )
        missing = [match for match in matches if not match.is_file()]
        if not matches or missing:
            raise DataError(
                f"{text} does not exist (looked from the folder {Path.cwd().name}). Check "
                f"data.files.",
                "data/missing",
            )
        found += matches
    return found


def open_all(paths: Sequence[Path], media: str) -> tuple[list[Entries], dict[str, float]]:
    """The files, and those that are damaged shards as `FileRecords.left_out`. Raises `DataError`
    for anything else."""
    size = sum(path.stat().st_size for path in paths)
    files, damaged = [], {}
    for path in paths:
        try:
            files.append(open_entries(path, media))
        except DataError as error:
            if error.code != "data/shard":
                raise
            damaged[error.message] = path.stat().st_size / size
    if not files:
        raise DataError(next(iter(damaged)), "data/shard")
    return files, damaged


def open_entries(path: Path, media: str) -> Entries:
    """Finds the entries of one file. Raises `DataError`."""
    kinds = {".jsonl": JsonLines, ".json": JsonList, ".tar": Shard}
    if path.suffix not in kinds:
        raise DataError(f"{path.name} is neither .jsonl, .json nor .tar.", "data/format")
    try:
        entries = kinds[path.suffix](path, Path(media) if media else path.parent)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.", "data/missing") from None
    if len(entries) == 0:
        raise DataError(f"{path.name} has no entries.", "data/empty")
    return entries


class Entries:
    """The entries of one file; `root` is the folder of its images."""

    def __init__(self, path: Path, root: Path):
        self.path, self.root = path, root

    def __len__(self) -> int:
        raise NotImplementedError

    def entry(self, index: int) -> dict[str, Any]:
        raise NotImplementedError

    def name(self, index: int) -> str:
        raise NotImplementedError

    def image(self, source: str | bytes) -> Image.Image:
        """An upright RGB image from encoded bytes, base64 text or a path below `root`.

        Raises:
            DataError: missing, outside the folder, no image, cut or too large.
        """
        try:
            with Image.open(io.BytesIO(self.read(source))) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
        except DataError:
            raise
        except Exception:  # Pillow's readers raise whatever the damage leads to
            label = (
                source if isinstance(source, str) and len(source) < 200 else "the encoded picture"
            )
            raise DataError(f"{label} is no whole picture.", "data/image") from None

    def read(self, source: str | bytes) -> bytes:
        """Bytes of an image or video: given as such, as base64, or as a path below `root`."""
        if isinstance(source, bytes):
            return source
        if not isinstance(source, str) or not source:
            raise DataError(f"{source!r} names no picture.", "data/image")
        if len(source) > 1000:
            try:
                return base64.b64decode(source, validate=True)
            except binascii.Error:
                raise DataError("The picture is not base64.", "data/image") from None
        return self.file(source).read_bytes()

    def file(self, source: str) -> Path:
        """The path of a file below `root`. Raises `DataError` when it is missing or outside."""
        parts = PurePosixPath(source)
        if parts.is_absolute() or ".." in parts.parts or "://" in source:
            raise DataError(
                f"{source} is not a path below the folder of the pictures (data.media).",
                "data/path",
            )
        path = self.root / parts
        if not path.is_file():
            raise DataError(
                f"{source} is not in the folder {self.root.name or self.root} (data.media).",
                "data/missing",
            )
        return path


class JsonLines(Entries):
    """One JSON object a line; blank lines are skipped."""

    def __init__(self, path: Path, root: Path):
        super().__init__(path, root)
        offsets, numbers, offset = [], [], 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip(b"\xef\xbb\xbf \t\r\n"):
                    offsets.append(offset)
                    numbers.append(number)
                offset += len(line)
        self.offsets, self.numbers = (
            np.array(offsets, dtype=np.int64),
            np.array(numbers, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def entry(self, index: int) -> dict[str, Any]:
        with self.path.open("rb") as file:
            file.seek(int(self.offsets[index]))
            return parse_entry(file.readline())

    def name(self, index: int) -> str:
        return f"{self.path.name}, line {self.numbers[index]}"


class JsonList(Entries):
    """A list of JSON objects, kept in memory."""

    def __init__(self, path: Path, root: Path):
        super().__init__(path, root)
        self.entries = read_json_list(path)

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        if not isinstance(entry, dict):
            raise DataError("The entry is not a JSON object.", "data/entry")
        return dict(entry)

    def name(self, index: int) -> str:
        return f"{self.path.name}, entry {index + 1}"


class Shard(Entries):
    """A WebDataset tar: members are found once and read by offset, so samples come in any order."""

    def __init__(self, path: Path, root: Path):
        super().__init__(path, root)
        self.samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
        try:
            for key, suffix, offset, size in _members(path):
                if not self.samples or self.samples[-1][0] != key:
                    self.samples.append((key, {}))
                self.samples[-1][1][suffix] = (offset, size)
        except tarfile.TarError as error:
            raise DataError(
                f"{path.name} is no whole tar file ({error}). Copy or write it again.", "data/shard"
            ) from None

    def __len__(self) -> int:
        return len(self.samples)

    def entry(self, index: int) -> dict[str, Any]:
        key, members = self.samples[index]
        entry: dict[str, Any] = {"image_id": f"{self.path.name}/{key}"}
        with self.path.open("rb") as file:
            contents = {suffix: _slice(file, *where) for suffix, where in members.items()}
        if ".json" in contents:
            entry |= parse_entry(contents[".json"])
        if ".txt" in contents:
            entry["caption"] = contents[".txt"].decode("utf-8")
        images = [
            contents[suffix]
            for suffix in sorted(contents)
            if PurePosixPath("x" + suffix).suffix in IMAGE_SUFFIXES
        ]
        return entry | ({"image": images[0], "image_members": images} if images else {})

    def name(self, index: int) -> str:
        return f"{self.path.name}, {self.samples[index][0]}"


def _members(path: Path) -> Iterator[tuple[str, str, int, int]]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isfile():
                stem, dot, suffix = PurePosixPath(member.name).name.partition(".")
                key = str(PurePosixPath(member.name).with_name(stem))
                yield key, (dot + suffix).lower(), member.offset_data, member.size
        # tarfile takes a damaged or missing header for the end; the real end is a block of zeros.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.TarError(f"damaged or cut at byte {tar.offset:,}")


def _slice(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise DataError("The shard ends before the sample does.", "data/shard")
    return content


def parse_entry(line: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8. Raises `DataError`."""
    try:
        entry = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise DataError("The text is not UTF-8.", "data/encoding") from None
    except (json.JSONDecodeError, RecursionError):
        raise DataError("The text is not JSON.", "data/json") from None
    if not isinstance(entry, dict):
        raise DataError("The entry is not a JSON object.", "data/entry")
    return entry


@lru_cache(maxsize=8)
def read_json_list(path: str | Path) -> list[Any]:
    """A JSON file whose top level is a list. Raises `DataError`."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.", "data/missing") from None
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8 text.", "data/encoding") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}, line {error.lineno}: the text is not JSON ({error.msg}).", "data/json"
        ) from None
    if not isinstance(content, list):
        raise DataError(f"{path.name} does not hold a list.", "data/format")
    return content


def _no_constant(name: str) -> None:
    raise DataError(f"{name} is no JSON number.", "data/json")
