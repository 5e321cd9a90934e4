"""WebDataset tars, local or behind a URL: members with one stem are a sample (`key.json` with its
fields, `key.jpg` its image or `key.000.jpg`, ... several, `key.txt` its caption).

What is kept in memory of a shard is where its samples begin, 8 bytes each; their names and sizes
stand in the tar. To find them once the whole tar is read. A file NAME.tar.index beside it, written
by

    python -m train.data.tars shards/*.tar

saves that: it is needed for shards behind a URL that are too large to be read twice.
"""

from __future__ import annotations

import argparse
import io
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from train.data.json_text import parse_entry
from train.data.remote import Place, RemoteFile, expand, file_size
from x2vlm.errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
INDEX = ".index"
_HIDDEN = re.compile(r"\..*|__MACOSX|PaxHeaders?(\.\d+)?|Thumbs\.db|desktop\.ini", re.IGNORECASE)
"""Names of files and folders that operating systems and archivers leave behind."""


class Tar:
    """The samples of one tar.

    Attributes:
        bounds: int64, where each sample begins, and where the last one ends.
        passed_over: names of members that belong to no sample: hidden ones (see `_HIDDEN`), and
            those without a suffix. Unknown, and so none, beside an index.
        apart: keys whose members do not stand together -> all their suffixes.

    Raises:
        DataError: it is no whole tar (`data/shard`), cannot be read, or its index is another
            tar's (`data/missing`).
    """

    def __init__(self, place: Place):
        self.place = place
        self.passed_over: list[str] = []
        self.apart: dict[str, set[str]] = {}
        self._latest = (-1, "")
        self.bounds = _read_index(place)
        if self.bounds is None:
            self.bounds = self._scan()

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def _scan(self) -> np.ndarray:
        starts, runs = [], []
        try:
            with self.place.open("rb") as file:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    for member in tar:
                        tar.members = []  # which would keep all of them
                        key, suffix = _key_and_suffix(member.name)
                        if not member.isfile():
                            continue
                        if not suffix:
                            self.passed_over.append(member.name)
                            continue
                        if not runs or runs[-1][0] != key:
                            runs.append((key, set()))
                            starts.append(member.offset)
                        runs[-1][1].add(suffix)
                    end = tar.offset
                # tarfile takes a damaged or missing header for the end; the real end is a block
                # of zeros.
                file.seek(end)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.TarError(f"damaged or cut at byte {end:,}")
        except tarfile.TarError as error:
            raise DataError(
                f"{self.place.name} is no whole tar file ({error}). Copy or write it again.",
                "data/shard",
            ) from None
        self.apart = _apart(runs)
        return np.array([*starts, end], dtype=np.int64)

    def entry(self, index: int) -> dict[str, Any]:
        """The fields of a sample; images as bytes under `image` and `image_members`."""
        key, contents = self._sample(index)
        self._latest = (index, key)
        if key in self.apart:
            raise DataError(
                f"The members of this sample are apart: {', '.join(sorted(contents))} here, "
                f"{', '.join(sorted(self.apart[key] - set(contents)))} elsewhere in the shard. "
                "Write the members of a sample one after the other (`tar --sort=name`).",
                "data/entry",
            )
        entry = parse_entry(contents[".json"]) if ".json" in contents else {}
        if ".txt" in contents:
            entry["caption"] = contents[".txt"].decode("utf-8")
        images = [
            contents[suffix]
            for suffix in sorted(contents)
            if PurePosixPath("x" + suffix).suffix in IMAGE_SUFFIXES
        ]
        return entry | ({"image": images[0], "image_members": images} if images else {})

    def key(self, index: int) -> str:
        """The stem of a sample's members, or its number when the tar cannot be read any more."""
        if self._latest[0] != index:
            try:
                self._latest = (index, self._sample(index)[0])
            except (OSError, DataError):
                return f"sample {index + 1}"
        return self._latest[1]

    def _sample(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Key and contents by suffix, in one read."""
        start, end = (int(bound) for bound in self.bounds[index : index + 2])
        content = _read(self.place, start, end)
        found: dict[str, bytes] = {}
        key = ""
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
                for member in tar:
                    stem, suffix = _key_and_suffix(member.name)
                    if member.isfile() and suffix:
                        key = stem
                        found[suffix] = tar.extractfile(member).read()
        except tarfile.TarError as error:
            raise DataError(f"The sample is damaged ({error}).", "data/shard") from None
        if len(content) < end - start or not found:
            raise DataError("The shard ends before the sample does.", "data/shard")
        return key, found


def _read(place: Place, start: int, end: int) -> bytes:
    if isinstance(place, RemoteFile):
        content = place.read(start, end)
        if len(content) > end - start:
            raise DataError(
                f"{place.url}: the server sends whole files and no ranges of them. Copy the shards "
                "to a disk or a server that does.",
                "data/remote",
            )
        return content
    with place.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _read_index(place: Place) -> np.ndarray | None:
    """The bounds from the file beside a tar; None when there is none."""
    if isinstance(place, RemoteFile):
        try:
            content = place.sibling(INDEX).read()
        except DataError as error:
            if error.code == "data/missing":
                return None
            raise
        numbers = np.load(io.BytesIO(content))
    else:
        beside = place.with_name(place.name + INDEX)
        if not beside.is_file():
            return None
        numbers = np.load(beside, mmap_mode="r")
    if numbers[-1] != file_size(place):
        raise DataError(
            f"{place.name}{INDEX} is of another tar than the one beside it. Write it again: python "
            f"-m train.data.tars {place.name}",
            "data/missing",
        )
    return numbers[:-1]


def write_index(path: Path) -> Path:
    """Writes what `Tar` reads beside a tar: its bounds and its size.

    Raises:
        DataError: as `Tar`; also members of one sample that do not stand together (`data/shard`).
    """
    beside = path.with_name(path.name + INDEX)
    beside.unlink(missing_ok=True)
    tar = Tar(path)
    if tar.apart:
        raise DataError(
            f"{path.name}: the members of {min(tar.apart)} do not stand together. Write the tar "
            "again (`tar --sort=name`).",
            "data/shard",
        )
    with beside.open("wb") as file:
        np.save(file, np.append(tar.bounds, file_size(path)))
    return beside


def _key_and_suffix(name: str) -> tuple[str, str]:
    """`d/k.000.jpg` is (`d/k`, `.000.jpg`); the suffix is empty for a member of no sample."""
    path = PurePosixPath(name)
    if any(_HIDDEN.fullmatch(part) for part in path.parts):
        return name, ""
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)), (dot + suffix).lower()


def _apart(runs: list[tuple[str, set[str]]]) -> dict[str, set[str]]:
    """Keys that come again with other suffixes -> all their suffixes. A key that comes again with
    the same ones is another sample."""
    found: dict[str, list[set[str]]] = {}
    for key, suffixes in runs:
        found.setdefault(key, []).append(suffixes)
    apart = {}
    for key, parts in found.items():
        suffixes = set().union(*parts)
        if len(parts) > 1 and len(suffixes) == sum(map(len, parts)):
            apart[key] = suffixes
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.data.tars", description="Writes the index of tars beside them."
    )
    parser.add_argument("tars", nargs="+", help="paths or patterns")
    for path in expand(parser.parse_args().tars):
        print(write_index(path))


if __name__ == "__main__":
    main()
