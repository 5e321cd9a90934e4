"""Search in a folder of images: contrastive features in a memory-mapped file, built once and
refreshed, the best of them ranked again by matching.

The index is a folder of three files: `features.f32` (float32 rows), `items.jsonl` (a line a row:
path, size and time of the file) and `index.json` (the model). A row counts when both files have it,
so that a run that is killed loses the last batch at most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from x2vlm.collections.runner import batched
from x2vlm.collections.sources import list_folder
from x2vlm.errors import DataError, X2VLMError
from x2vlm.inference.predictor import Predictor

INDEX = ".x2vlm"
"""The folder of the index, inside the folder that is searched."""
FEATURES, ITEMS, ABOUT = "features.f32", "items.jsonl", "index.json"
RERANKED = 32
"""Images that the matching head looks at, for every text."""
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Found:
    """One image that fits a text: the cosine of the two encoders, and the match probability where
    the model can match and the image was looked at again."""

    path: str
    similarity: float
    match: float | None = None


class ImageIndex:
    """The images of a folder, ready to be searched.

    Attributes:
        paths: of the images, a row of `features` each; None where the image is gone or changed.
        features: float32 (N, E), L2-normalised, mapped into memory.
        failed: path -> what is wrong with an image that could not be read.
    """

    def __init__(self, predictor: Predictor, paths: Sequence[str | None], features: np.ndarray):
        self.predictor, self.paths, self.features = predictor, list(paths), features
        self._present = np.array([path is not None for path in paths], dtype=bool)
        self.failed: dict[str, str] = {}

    @classmethod
    def of_folder(
        cls,
        predictor: Predictor,
        folder: str | Path,
        recursive: bool = False,
        place: str | Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ImageIndex:
        """The index of a folder as it is now: images that are new or changed are encoded, those
        that are gone are left out.

        Args:
            place: folder of the index files, by default inside `folder`.
            progress: called with (images encoded, images to encode).

        Raises:
            DataError: no images (`data/missing`), another run is building the index (`data/busy`),
                or it cannot be written (`data/write`).
        """
        folder = Path(folder)
        files = [Path(path).relative_to(folder) for path in list_folder(folder, recursive)]
        store, failed, done = _Store(Path(place or folder / INDEX), predictor), {}, 0
        with store.locked():
            known = store.open()
            stats = {name.as_posix(): _stat(folder / name) for name in files}
            waiting = [name for name in stats if known.get(name, (None,))[0] != stats[name]]
            for group in batched(waiting, predictor.items_at_once):
                encoded = predictor.image_features([str(folder / name) for name in group])
                good = [not isinstance(one, X2VLMError) for one in encoded]
                failed |= {n: str(e) for n, e, fine in zip(group, encoded, good) if not fine}
                store.append([(n, stats[n], f) for n, f, fine in zip(group, encoded, good) if fine])
                done += len(group)
                progress(done, len(waiting))
            rows = {
                row: name for name, (stat, row) in store.open().items() if stat == stats.get(name)
            }
        features = store.features()
        names = [rows.get(row) for row in range(len(features))]
        index = cls(predictor, [None if n is None else str(folder / n) for n in names], features)
        index.failed = failed
        return index

    def search(self, text: str, top: int = 10, rerank: bool = True) -> list[Found]:
        """The images that fit a text best, best first: by the cosine, and the first `RERANKED` of
        these by the matching head.

        Raises:
            TextError: the text cannot be read (`text/*`).
        """
        scores = similarities(self.features, self.predictor.text_features(text))
        scores[~self._present] = -np.inf
        looked = min(max(top, RERANKED) if rerank else top, int(self._present.sum()))
        best = np.argpartition(-scores, looked - 1)[:looked] if looked else np.zeros(0, int)
        best = best[np.argsort(-scores[best], kind="stable")]
        found = [Found(self.paths[i], float(scores[i])) for i in best]
        if rerank:
            matches = self.predictor.match([one.path for one in found], text)
            found = [
                one
                if isinstance(match, X2VLMError)
                else Found(one.path, one.similarity, match[0].probability)
                for one, match in zip(found, matches, strict=True)
            ]
            found.sort(key=lambda one: -1.0 if one.match is None else -one.match - 1)
        return found[:top]


def check_folder(folder: str | Path, recursive: bool) -> None:
    """Raises:
    DataError: there is no such folder, or no image in it (`data/missing`).
    """
    if not Path(folder).is_dir():
        raise DataError(f"There is no folder {folder}. Check its name.", "data/missing")
    list_folder(Path(folder), recursive)


def similarities(features: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Cosines float32 (N,) of features (N, E) with one text (E,), some rows of the file at a
    time."""
    parts = [
        np.asarray(features[start : start + ROWS_AT_ONCE]) @ text
        for start in range(0, len(features), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class _Store:
    """The files of an index."""

    def __init__(self, place: Path, predictor: Predictor):
        self.place, self.width = place, predictor.feature_size
        self.about = {"model": predictor.info.hash or predictor.info.name, "width": self.width}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time builds an index."""
        try:
            self.place.mkdir(exist_ok=True)
            with FileLock(self.place / "lock", timeout=0):
                yield
        except Timeout:
            raise DataError(
                f"Another run is building the index in {self.place}. Wait for it.", "data/busy"
            ) from None
        except OSError as error:
            raise DataError(
                f"The index in {self.place} cannot be written ({error.strerror}). Choose another "
                "folder with --index.",
                "data/write",
            ) from None

    def open(self) -> dict[str, tuple[list[int], int]]:
        """Path -> (size and time, row); both files cut to the rows that they share. The index of
        another model is begun anew."""
        about, features, items = (self.place / name for name in (ABOUT, FEATURES, ITEMS))
        try:
            own = json.loads(about.read_text(encoding="utf-8")) == self.about
        except (OSError, ValueError):
            own = False
        if not own:
            features.write_bytes(b"")
            items.write_bytes(b"")
            about.write_text(json.dumps(self.about), encoding="utf-8")
        lines = items.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        rows = min(len(lines), features.stat().st_size // (4 * self.width))
        os.truncate(items, sum(map(len, lines[:rows])))
        os.truncate(features, rows * 4 * self.width)
        entries = map(json.loads, lines[:rows])
        return {entry["path"]: (entry["stat"], row) for row, entry in enumerate(entries)}

    def append(self, rows: Sequence[tuple[str, list[int], np.ndarray]]) -> None:
        """Features first, then the lines that make them count."""
        with open(self.place / FEATURES, "ab") as file:
            file.write(b"".join(f.astype(np.float32).tobytes() for _, _, f in rows))
        with open(self.place / ITEMS, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps({"path": p, "stat": s}) + "\n" for p, s, _ in rows))

    def features(self) -> np.ndarray:
        """float32 (N, E), mapped into memory."""
        path = self.place / FEATURES
        if not path.stat().st_size:
            return np.zeros((0, self.width), np.float32)
        return np.memmap(path, np.float32, "r").reshape(-1, self.width)


def _stat(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]
