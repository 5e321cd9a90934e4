"""Files by their place: a path, or a URL (https, s3, gs, ...) that fsspec reads in ranges."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from x2vlm.errors import DataError

WAITS = (0.5, 2.0, 8.0)
"""Seconds before a request that failed is made again."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class RemoteFile:
    """A file behind a URL. It holds no connection, so data workers may share it."""

    def __init__(self, url: str):
        self.url = url
        path = PurePosixPath(url.partition("?")[0])
        self.name, self.suffix = path.name, path.suffix

    @cached_property
    def size(self) -> int:
        """Bytes. Raises as `read`."""
        return int(self._ask(lambda system, path: system.info(path)["size"]))

    def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Bytes from `start` up to `end`.

        Raises:
            DataError: there is no such file (`data/missing`), or it cannot be read in several
                attempts (`data/remote`); the message has the cause.
        """
        return self._ask(lambda system, path: system.cat_file(path, start, end))

    def sibling(self, suffix: str) -> RemoteFile:
        """The file whose URL ends by `suffix` more."""
        address, mark, query = self.url.partition("?")
        return RemoteFile(f"{address}{suffix}{mark}{query}")

    def open(self, mode: str) -> Any:
        """The file, to be read from front to back."""
        return self._ask(lambda system, path: system.open(path, mode, block_size=2**22))

    def _ask(self, question: Callable[[Any, str], Any]) -> Any:
        import fsspec

        cause: BaseException | None = None
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            try:
                # Looked up each time: a data worker has connections of its own.
                return question(*fsspec.core.url_to_fs(self.url))
            except FileNotFoundError as error:
                cause = error.__cause__  # fsspec says so of a server that does not answer, too
                if cause is None or getattr(cause, "status", 0) == 404:
                    raise DataError(f"{self.url} does not exist.", "data/missing") from None
            except ImportError as error:
                raise DataError(
                    f"{self.url}: {error} Or pip install 'x2vlm[remote]'.", "data/missing"
                ) from None
            except Exception as error:  # every protocol has errors of its own
                cause = error
        raise DataError(
            f"{self.url} cannot be read ({type(cause).__name__}: {cause}). See whether the "
            "server answers and your access is valid.",
            "data/remote",
        )


Place = Path | RemoteFile


def file_size(place: Place) -> int:
    return place.size if isinstance(place, RemoteFile) else place.stat().st_size


def expand(files: list[str] | tuple[str, ...]) -> list[Place]:
    """Places in the order given: patterns (`*`) sorted by name, ranges (`{000..127}`) in full.

    Raises:
        DataError: a path does not exist, or nothing fits a pattern (`data/missing`).
    """
    return [place for text in files for part in _ranges(text) for place in _places(part)]


def _ranges(text: str) -> list[str]:
    """`a-{08..10}.tar` as WebDataset writes it: a-08, a-09, a-10."""
    match = _RANGE.search(text)
    if not match:
        return [text]
    first, last = match.groups()
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return [
        part for n in numbers for part in _ranges(text[: match.start()] + n + text[match.end() :])
    ]


def _places(text: str) -> list[Place]:
    pattern = any(mark in text for mark in "*[") or ("?" in text and "://" not in text)
    if "://" in text:
        found: list[Place] = _remote_glob(text) if pattern else [RemoteFile(text)]
        missing = False  # told when it is opened
    else:
        path = Path(text)
        found = sorted(path.parent.glob(path.name)) if pattern else [path]
        missing = not all(match.is_file() for match in found)
    if not found or missing:
        raise DataError(
            f"{text} does not exist (looked from the folder {Path.cwd().name}). Check data.files.",
            "data/missing",
        )
    return found


def _remote_glob(text: str) -> list[Place]:
    names = RemoteFile(text)._ask(
        lambda system, path: [system.unstrip_protocol(name) for name in system.glob(path)]
    )
    return [RemoteFile(name) for name in sorted(names)]
