"""The entries of annotation files and WebDataset shards, found once and read when they are asked
for, so that a large corpus costs few bytes an entry.

`.jsonl`: one entry a line, found by byte offset. `.json`: a list of entries. `.tar`: see
`train.data.tars`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from train.data.json_text import parse_entry, read_json_list
from train.data.remote import Place, RemoteFile
from train.data.tars import Tar
from x2vlm.errors import DataError, MediaError
from x2vlm.media import decode_image

LONGEST_PATH = 1000
"""Characters; a longer text in the place of a path is an image in base64."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]{60,}={0,2}")


def open_entries(path: Place, media: str) -> Entries:
    """Finds the entries of one file. Raises `DataError`."""
    remote = isinstance(path, RemoteFile)
    if remote and path.suffix != ".tar":
        raise DataError(
            f"{path.url}: only .tar shards are read from a URL. Copy the file here.", "data/format"
        )
    root = Path(media) if media or remote else path.parent
    kinds = {".jsonl": JsonLines, ".json": JsonList, ".tar": Shard}
    if path.suffix not in kinds:
        raise DataError(f"{path.name} is neither .jsonl, .json nor .tar.", "data/format")
    try:
        entries = kinds[path.suffix](path, root)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.", "data/missing") from None
    if len(entries) == 0:
        raise DataError(f"{path.name} has no entries.", "data/empty")
    return entries


class Entries:
    """The entries of one file; `root` is the folder of its images."""

    def __init__(self, path: Place, root: Path):
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
    """A WebDataset tar (see `train.data.tars`), so samples come in any order."""

    def __init__(self, path: Place, root: Path):
        super().__init__(path, root)
        self.tar = Tar(path)

    def __len__(self) -> int:
        return len(self.tar)

    def entry(self, index: int) -> dict[str, Any]:
        return self.tar.entry(index)

    def name(self, index: int) -> str:
        return f"{self.path.name}, {self.tar.key(index)}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
