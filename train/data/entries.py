"""The entries of annotation files and WebDataset shards, found once and read when they are asked
for, so that a large corpus costs few bytes an entry.

`.jsonl`: one entry a line, found by byte offset. `.json`: a list of entries. `.tar`: members with
one stem are an entry (`key.json` with its fields, `key.jpg` its image or `key.000.jpg`, ...
several, `key.txt` its caption).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from train.data.json_text import parse_json, read_json_list
from x2vlm.errors import DataError, MediaError
from x2vlm.media import decode_image

LONGEST_PATH = 1000
"""Characters; a longer text in the place of a path is an image in base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
_HIDDEN = re.compile(r"\..*|__MACOSX|PaxHeaders?(\.\d+)?|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Names of files and folders that operating systems and archivers leave behind."""


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

    def identity(self, source: Any) -> str:
        """Equal for the same image or video: the path of a file, a digest of encoded content.

        Args:
            source: as for `read`, or a list of such, as the frames of a video are given.
        """
        if isinstance(source, list):
            return _digest("".join(map(self.identity, source)).encode())
        if isinstance(source, str) and not self._is_base64(source):
            return str(self.root / PurePosixPath(source))
        return _digest(self.read(source))

    def _is_base64(self, text: str) -> bool:
        """Long texts, and shorter ones that name no file and can be nothing else."""
        if len(text) > LONGEST_PATH:
            return True
        return bool(_BASE64.fullmatch(text)) and not (self.root / text).is_file()

    def image(self, source: str | bytes) -> Image.Image:
        """An image from encoded bytes, base64 text or a path below `root`, with the pixels that
        inference sees.

        Raises:
            DataError: missing, outside the folder, no image, cut or too large.
        """
        data = self.read(source)
        try:
            return decode_image(data)
        except MediaError as error:
            label = source if isinstance(source, str) and len(source) < 200 else "the encoded image"
            raise DataError(f"{label}: {error.message}", error.code) from None

    def read(self, source: str | bytes) -> bytes:
        """Bytes of an image or video: given as such, as base64, or as a path below `root`."""
        if isinstance(source, bytes):
            return source
        if not isinstance(source, str) or not source:
            raise DataError(f"{source!r} names no image.", "data/image")
        if self._is_base64(source):
            try:
                return base64.b64decode(source, validate=True)
            except binascii.Error:
                raise DataError("The image is not base64.", "data/image") from None
        return self.file(source).read_bytes()

    def file(self, source: str) -> Path:
        """The path of a file below `root`. Raises `DataError` when it is missing or outside."""
        parts = PurePosixPath(source)
        if parts.is_absolute() or ".." in parts.parts or "://" in source:
            raise DataError(
                f"{source} is not a path below the folder of the images (data.media).",
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
        if isinstance(entry, DataError):
            raise DataError(entry.message, entry.code)
        if not isinstance(entry, dict):
            raise DataError("The entry is not a JSON object.", "data/entry")
        return dict(entry)

    def name(self, index: int) -> str:
        return f"{self.path.name}, entry {index + 1}"


class Shard(Entries):
    """A WebDataset tar: members are found once and read by offset, so samples come in any order.

    Attributes:
        passed_over: names of members that belong to no sample: hidden ones (see `_HIDDEN`), and
            those without a suffix.
    """

    def __init__(self, path: Path, root: Path):
        super().__init__(path, root)
        self.samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
        self.passed_over: list[str] = []
        try:
            for name, offset, size in _members(path):
                key, suffix = _key_and_suffix(name)
                if not suffix:
                    self.passed_over.append(name)
                    continue
                if not self.samples or self.samples[-1][0] != key:
                    self.samples.append((key, {}))
                self.samples[-1][1][suffix] = (offset, size)
        except tarfile.TarError as error:
            raise DataError(
                f"{path.name} is no whole tar file ({error}). Copy or write it again.", "data/shard"
            ) from None
        self.apart = _apart(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def entry(self, index: int) -> dict[str, Any]:
        key, members = self.samples[index]
        if key in self.apart:
            raise DataError(
                f"The members of this sample are apart: {', '.join(sorted(members))} here, "
                f"{', '.join(sorted(self.apart[key] - set(members)))} elsewhere in the shard. "
                "Write the members of a sample one after the other (`tar --sort=name`).",
                "data/entry",
            )
        with self.path.open("rb") as file:
            contents = {suffix: _slice(file, *where) for suffix, where in members.items()}
        entry = parse_entry(contents[".json"]) if ".json" in contents else {}
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


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every file in a tar."""
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, member.offset_data, member.size
        # tarfile takes a damaged or missing header for the end; the real end is a block of zeros.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.TarError(f"damaged or cut at byte {tar.offset:,}")


def _key_and_suffix(name: str) -> tuple[str, str]:
    """`d/k.000.jpg` is (`d/k`, `.000.jpg`); the suffix is empty for a member of no sample."""
    path = PurePosixPath(name)
    if any(_HIDDEN.fullmatch(part) for part in path.parts):
        return name, ""
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)), (dot + suffix).lower()


def _apart(samples: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, set[str]]:
    """Keys that come again with other suffixes -> all their suffixes. A key that comes again with
    the same ones is another sample."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, members in samples:
        found.setdefault(key, []).append(members)
    apart = {}
    for key, runs in found.items():
        suffixes = set().union(*runs)
        if len(runs) > 1 and len(suffixes) == sum(map(len, runs)):
            apart[key] = suffixes
    return apart


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _slice(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise DataError("The shard ends before the sample does.", "data/shard")
    return content


def parse_entry(line: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8. Raises `DataError`."""
    entry = parse_json(line)
    if not isinstance(entry, dict):
        raise DataError("The entry is not a JSON object.", "data/entry")
    return entry
