"""People's own images and texts -> {train,val,test}.jsonl, checked, joined by image and split.

    python -m train.prepare.own pairs.csv --task caption --out data/mine

For the layouts see `train.prepare.layouts`. Columns are known by their names, in any case
(`train.prepare.columns`); `--columns caption=beschreibung` names another one. Rows of one image, by
its content, become one entry, so that none stands in two parts. The part of an image is what a
column `split` or a folder says, else it follows from the hash of its content and never changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.data.boxes import to_fractions
from train.prepare.columns import COLUMNS, NEEDS, Columns
from train.prepare.common import stable_share, write_json_lines
from train.prepare.layouts import Row, read_rows
from x2vlm.errors import ConfigError, DataError, MediaError, X2VLMError
from x2vlm.media import decode_image

FORMATS = {
    "caption": "image_text",
    "retrieval": "image_text",
    "ask": "question_answer",
    "ground": "region_text",
}
PARTS = ("train", "val", "test")
LEAST_IMAGES = 10


@dataclass
class OwnImage:
    """An image and what its rows say of it: captions, (question, answer) or (phrase, box)."""

    path: str
    said: list[Any] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)


class FolderError(DataError):
    """The images are not found at all, which ends the reading."""


class Faults:
    """Rows that cannot be used, by the code of what is wrong; the first message of each is told."""

    def __init__(self):
        self.rows: dict[str, list[str]] = defaultdict(list)
        self.messages: dict[str, str] = {}

    def add(self, row: Row, error: DataError) -> None:
        self.rows[error.code].append(row.name)
        self.messages.setdefault(error.code, error.message.rstrip("."))

    def lines(self, total: int) -> list[str]:
        return [
            f"{len(names):,} of {total:,} rows: {self.messages[code]} ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''})"
            for code, names in self.rows.items()
        ]


class OwnData:
    """Reads, checks, joins and splits.

    Args:
        data: file or folder.
        task: a key of `NEEDS`.
        out: folder for the parts, and for images that the data hold as bytes.
        images: folder of the images; None looks beside the data and in folders near it.
        columns: what we look for -> name of the column.
        shares: of the images, for `val` and `test`.
        max_bad: the part of the rows that may be unusable.

    Attributes:
        media: folder that the paths of the entries start from.
        lines: the summary, a sentence a line.
        counts: images of each part.
    """

    def __init__(
        self,
        data: Path,
        task: str,
        out: Path,
        images: Path | None = None,
        columns: dict[str, str] | None = None,
        shares: tuple[float, float] = (0.1, 0.15),
        max_bad: float = 0.05,
    ):
        self.data, self.task, self.out, self.given = data, task, out, columns or {}
        self.shares, self.max_bad = shares, max_bad
        self.root: Path | None = images.resolve() if images else None
        self.columns: Columns | None = None
        self.known: dict[str, tuple[str, str]] = {}
        self.images: dict[str, OwnImage] = {}
        self.faults, self.total = Faults(), 0
        self.lines: list[str] = []
        self.counts: dict[str, int] = {}
        self.media = ""

    def write(self) -> OwnData:
        """Writes the parts and prints the summary.

        Raises:
            DataError: no column is what the task needs, an image folder is not found, too many rows
                are unusable, or there are too few images. The message names file, rows and remedy.
        """
        for row in read_rows(self.data):
            self.total += 1
            self._add(row)
        self._judge()
        parts = self._split()
        self.counts = {part: len(parts[part]) for part in PARTS}
        folders = {os.path.dirname(image.path) for image in self.images.values()}
        self.media = os.path.commonpath(folders)
        for part in PARTS:
            entries = (entry for found in parts[part] for entry in self._entries(*found))
            write_json_lines(self.out / f"{part}.jsonl", entries)
        self._summarise(parts)
        print("\n".join(self.lines))
        return self

    def _add(self, row: Row) -> None:
        if not row.columns:
            self.faults.add(row, DataError("cannot be read", "data/json"))
            return
        if self.columns is None:
            self.columns = Columns(self.data.name, self.task, self.given, row)
        try:
            said = self.columns.said(row)
            path, digest, size = self._image(self.columns.value(row, "image"))
            if self.task == "ground":
                to_fractions(said[0][1], *size)  # for its complaints
        except FolderError:
            raise
        except DataError as error:
            self.faults.add(row, error)
            return
        image = self.images.setdefault(digest, OwnImage(path))
        image.said += [item for item in said if item not in image.said]
        image.parts |= {self.columns.part(row)} - {""}

    def _image(self, source: Any) -> tuple[str, str, tuple[int, int]]:
        """Path below `root`, digest of the content, and size. Raises `DataError`."""
        if isinstance(source, dict):  # as `datasets` keeps an image
            source = source.get("bytes") or source.get("path")
        if isinstance(source, bytes):
            return self._stored(source)
        if not source:
            raise DataError("no image is named", "data/image")
        key = str(source).strip()
        if key not in self.known:
            if key.startswith(("http://", "https://")):
                raise DataError("the image is an address; download it first", "data/missing")
            path = self._folder_of(key) / key
            if not path.is_file():
                raise DataError(f"the image is missing from {self.root}", "data/missing")
            digest, size = _look(path.read_bytes())
            self.known[key] = (str(path.resolve()), digest, size)
        return self.known[key]

    def _folder_of(self, name: str) -> Path:
        """The folder of the images, found with the first image and then kept.

        Raises:
            DataError: no folder near the data holds it (`data/missing`).
        """
        if self.root is None:
            home = (self.data if self.data.is_dir() else self.data.parent).resolve()
            near = [home, home / "images", home.parent, home.parent / "images"]
            near += sorted(path for path in (*home.iterdir(), *home.parent.iterdir()))
            self.root = next((f for f in near if f.is_dir() and (f / name).is_file()), None)
        if self.root is None:
            raise FolderError(
                f"{self.data.name} names the image {name}, which is neither beside it nor in a "
                "folder near it. Where are the images? --images FOLDER.",
                "data/missing",
            )
        return self.root

    def _stored(self, content: bytes) -> tuple[str, str, tuple[int, int]]:
        digest, size = _look(content)
        path = self.out.resolve() / "images" / f"{digest}.jpg"  # readers go by the content
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
        return str(path), digest, size

    def _judge(self) -> None:
        """Raises `DataError` when there is nothing, or too little of it, to learn from."""
        bad = sum(map(len, self.faults.rows.values()))
        said = "; ".join(self.faults.lines(self.total))
        if not self.total:
            raise DataError(f"{self.data.name} has no rows.", "data/empty")
        if self.task == "ground":
            self._leave_out_ambiguous()
        if bad > self.max_bad * self.total:
            raise DataError(
                f"{self.data.name}: {said}. Mend them, or leave them out with --max-bad "
                f"{bad / self.total + 0.005:.2f}.",
                "data/unreadable",
            )
        if len(self.images) < LEAST_IMAGES:
            raise DataError(
                f"{self.data.name} has {len(self.images)} images that can be used; at least "
                f"{LEAST_IMAGES} are needed, some of them to measure on.",
                "data/empty",
            )

    def _leave_out_ambiguous(self) -> None:
        """A phrase that has several boxes in one image names none of them."""
        before = sum(len(image.said) for image in self.images.values())
        for image in self.images.values():
            count = Counter(phrase for phrase, _ in image.said)
            image.said = [item for item in image.said if count[item[0]] == 1]
        self.images = {digest: image for digest, image in self.images.items() if image.said}
        left = sum(len(image.said) for image in self.images.values())
        if left < before:
            self.lines.append(
                f"{before - left:,} of {before:,} boxes are left out: their image shows several "
                "things of that name."
            )

    def _split(self) -> dict[str, list[tuple[str, OwnImage]]]:
        parts: dict[str, list[tuple[str, OwnImage]]] = {part: [] for part in PARTS}
        across = 0
        named = {part for image in self.images.values() for part in image.parts}
        test, val = (
            0 if part in named else share for part, share in zip(("test", "val"), self.shares[::-1])
        )
        for digest, image in sorted(self.images.items(), key=lambda item: stable_share(item[0])):
            across += len(image.parts) > 1
            part = next((p for p in ("test", "val") if p in image.parts), None)
            if part is None:
                share = stable_share(digest)
                part = "test" if share < test else "val" if share < test + val else "train"
            parts[part].append((digest, image))
        if across:
            self.lines.append(
                f"{across:,} images stand in several parts of the data; they are taken out of "
                "training."
            )
        for part in ("val", "test"):  # the hash of few images may leave one empty
            if not parts[part]:
                parts[part].append(parts["train"].pop(0))
        return parts

    def _entries(self, digest: str, image: OwnImage) -> Iterator[dict[str, Any]]:
        """An entry an image, or one a question, in `FORMATS`."""
        entry = {"image": os.path.relpath(image.path, self.media), "image_id": digest}
        if self.task == "ask":
            for question, answers in image.said:
                answer = answers if len(answers) > 1 else answers[0]
                yield {**entry, "question": question, "answer": answer}
        elif self.task == "ground":
            yield {**entry, "elems": [{"bb": box, "caption": text} for text, box in image.said]}
        else:
            yield {**entry, "captions": image.said}

    def _joined(self) -> list[str]:
        twice = len(self.known) - len(self.images)
        return [f"{twice:,} files have the content of another one; they are one image."] * (
            twice > 0 and self.task != "ground"
        )

    def _summarise(self, parts: dict[str, list]) -> None:
        texts = [text for image in self.images.values() for text in _texts(self.task, image)]
        words = [len(text.split()) for text in texts]
        what = {"ask": "questions", "ground": "phrases with a box"}.get(self.task, "captions")
        each = len(texts) / len(self.images)
        self.lines = [
            f"{len(self.images):,} images, {len(texts):,} {what} ({each:.1f} an image, "
            f"{min(words)} to {max(words)} words, {statistics.median(words):g} in the median)",
            ", ".join(f"{len(parts[part]):,} images in {part}" for part in PARTS),
            *self.lines,
            *self._joined(),
            *self.faults.lines(self.total),
        ]


def _texts(task: str, image: OwnImage) -> list[str]:
    return [item[0] for item in image.said] if task in ("ask", "ground") else image.said


def _look(content: bytes) -> tuple[str, tuple[int, int]]:
    """Digest of an encoded image, and its size as training will see it. Raises `DataError`."""
    try:
        size = decode_image(content).size
    except MediaError as error:
        raise DataError(error.message.rstrip("."), error.code) from None
    return hashlib.blake2b(content, digest_size=16).hexdigest(), size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What says where the data are and how they are read."""
    parser.add_argument("data", type=Path, help="file or folder with images and texts")
    parser.add_argument("--task", required=True, choices=NEEDS)
    parser.add_argument("--images", type=Path, help="folder of the images")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="WORD=COLUMN",
        help=f"columns with names of their own; the words: {', '.join(COLUMNS)}",
    )
    parser.add_argument("--val", type=float, default=0.1, help="share of the images (default 0.1)")
    parser.add_argument("--test", type=float, default=0.15, help="the same (default 0.15)")
    parser.add_argument(
        "--max-bad", type=float, default=0.05, help="share of unusable rows (default 0.05)"
    )


def own_data(options: argparse.Namespace, out: Path) -> OwnData:
    """The data that the options name, written to `out`. Raises `DataError`, `ConfigError`."""
    pairs = dict(item.partition("=")[::2] for item in options.columns)
    if unknown := sorted(set(pairs) - set(COLUMNS)) or [w for w, name in pairs.items() if not name]:
        raise ConfigError(
            f"--columns: {unknown[0]!r} is not WORD=COLUMN. The words: {', '.join(COLUMNS)}.",
            "config/value",
        )
    if not (options.val >= 0 and options.test >= 0 and options.val + options.test < 1):
        raise ConfigError("--val and --test are shares; together below 1.", "config/value")
    shares = (options.val, options.test)
    data = OwnData(options.data, options.task, out, options.images, pairs, shares, options.max_bad)
    return data.write()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.prepare.own", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        own_data(options, options.out)
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
