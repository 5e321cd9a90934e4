"""What the converters share: downloading to a final name only when complete, reading JSON, writing
JSON lines."""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import pickle
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from x2vlm.errors import DataError, X2VLMError

CHUNK = 1 << 20
Row = TypeVar("Row")
EXCLUDE = {
    "nargs": "*",
    "type": Path,
    "default": [],
    "help": "files whose image_id are COCO pictures to leave out",
}
"""An option of `arguments`, see `excluded`."""
SHOTS = {
    "nargs": "*",
    "default": [],
    "help": "also few_shot_LANGUAGE_SHOTS.jsonl of IGLUE, for example 1 10 48",
}
"""An option of `arguments`: the training parts of IGLUE's few-shot setting."""
IGLUE = "https://raw.githubusercontent.com/e-bug/iglue/main/datasets"


_read: list[str] = []
"""Names of the files that were read, the latest last."""


def run(main: Callable[..., None], *given: Any) -> None:
    """Runs a command of this package. What is wrong with the files is told in words, with what the
    module says of them; the exit code is then 2."""
    try:
        main(*given)
    except X2VLMError as error:
        print(error, file=sys.stderr)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        about = sys.modules[main.__module__].__doc__
        print(
            f"{_read[-1] if _read else 'A file'} is not as its publisher has it "
            f"({type(error).__name__}: {error}). What is expected:\n\n{about}",
            file=sys.stderr,
        )
    else:
        return
    sys.exit(2)


def arguments(description: str, **options: dict[str, Any]) -> argparse.Namespace:
    """`--out` and `--raw`, and further options by name."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder for our files")
    parser.add_argument(
        "--raw",
        type=Path,
        help="folder with the original files; default: OUT/raw, downloaded where possible",
    )
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    found = parser.parse_args()
    found.raw = found.raw or found.out / "raw"
    found.raw.mkdir(parents=True, exist_ok=True)
    return found


def fetch(name: str, url: str, raw: Path) -> Path:
    """The file `raw/name`, downloaded from `url` unless it is there; an interrupted download goes
    on where it stopped.

    Raises:
        DataError: it is not there and cannot be downloaded; the message says where to put it.
    """
    path, partial = raw / name, raw / f"{name}.partial"
    if path.exists():
        return path
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            resumed = response.status == 206
            total = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
            with (
                partial.open("ab" if resumed else "wb") as file,
                tqdm(total=total or None, unit="B", unit_scale=True, desc=name) as bar,
            ):
                while block := response.read(CHUNK):
                    file.write(block)
                    bar.update(len(block))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"{name} cannot be downloaded ({error}). Get it from {url} and put it into "
            f"{raw.name}/.",
            "data/missing",
        ) from None
    if total and partial.stat().st_size != total:
        raise DataError(
            f"{name} came down incomplete. Run the command again; it goes on.", "data/missing"
        )
    os.replace(partial, path)
    return path


def need(name: str, raw: Path, where: str) -> Path:
    """`raw/name`, which the user must download. Raises `DataError` that says where it
    comes from."""
    if not (raw / name).exists():
        raise DataError(f"{name} is not in {raw.name}/. It comes from {where}.", "data/missing")
    return raw / name


def read_json(path: Path, member: str | None = None) -> Any:
    """A JSON file, or a member of a zip file. Raises `DataError`."""
    _read.append(path.name if member is None else f"{member} of {path.name}")
    try:
        if member is None:
            return json.loads(path.read_text(encoding="utf-8"))
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(member))
    except (json.JSONDecodeError, UnicodeDecodeError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"{path.name} is damaged or not what it should be ({error}). Delete it and run again.",
            "data/json",
        ) from None


def read_table(
    path: Path, columns: Collection[str], source: str, delimiter: str = ","
) -> Iterator[dict[str, str]]:
    """The rows of a table whose first line names the columns.

    Raises:
        DataError: a column of `columns` is missing (`data/key`); the message says where the
            publisher keeps the file, `source`.
    """
    _read.append(path.name)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        if lacking := sorted(set(columns) - set(reader.fieldnames or ())):
            raise DataError(
                f"{path.name} has no column {lacking[0]!r}; expected are "
                f"{', '.join(sorted(columns))}. It comes from {source}.",
                "data/key",
            )
        yield from reader


def with_text(
    rows: Iterable[Row], text_of: Callable[[Row], str], file: str, source: str
) -> Iterator[Row]:
    """The rows that say something.

    Raises:
        DataError: after the last row, when there was none, or more than a third of them were empty
            (`data/empty`): the file is cut, or of another layout.
    """
    empty = count = 0
    for row in rows:
        count += 1
        if (text_of(row) or "").strip():
            yield row
        else:
            empty += 1
    if 3 * empty > count or not count:
        raise DataError(
            f"{file}: the text is empty in {empty} of {count} rows. It comes from {source}.",
            "data/empty",
        )


def read_json_lines(path: Path) -> Iterator[Any]:
    """One JSON value a line, of a `.gz` file too. Raises `DataError` with the line."""
    _read.append(path.name)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    raise DataError(
                        f"{path.name}, line {number}: the text is not JSON.", "data/json"
                    ) from None


def write_json_lines(
    path: Path, entries: Iterable[dict[str, Any]], published: int | None = None
) -> int:
    """Writes entries under the final name only when all are written; returns and prints their
    number, and that which is `published`, if it is another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("w", encoding="utf-8") as file:
        for entry in entries:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            count += 1
    os.replace(partial, path)
    wrong = f" instead of the {published} published: a file is cut, or of another version"
    print(f"{path}: {count} entries{wrong if published not in (None, count) else ''}")
    return count


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(path)


def excluded(paths: Iterable[Path]) -> set[int]:
    """The images of some files of ours, by `image_id`."""
    return {entry["image_id"] for path in paths for entry in read_json_lines(path)}


def stable_share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, for splits that never change."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48


class _PlainUnpickler(pickle.Unpickler):
    """Numbers, texts, lists and dicts; whatever would import code is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        raise DataError(
            f"The file wants to import {module}.{name}; it should hold plain values only.",
            "data/pickle",
        )


def read_plain_pickle(path: Path) -> Any:
    """A pickle of plain values (RefCOCO's `refs(unc).p`). Raises `DataError` for anything else."""
    _read.append(path.name)
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
    except (
        pickle.UnpicklingError,
        EOFError,
        UnicodeDecodeError,
        IndexError,
        ValueError,
        KeyError,
        AttributeError,
    ):
        raise DataError(
            f"{path.name} is no whole pickle file. Download it again.", "data/pickle"
        ) from None
