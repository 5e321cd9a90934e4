"""Where results go: JSON lines, or a folder of Parquet files. One record an item, whatever happens.

A run that was killed leaves whole records and perhaps half a line, which the next run cuts off; its
finished items are known by their ids and are not done again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from x2vlm.errors import DataError

RECORDS_A_PART = 5000
"""Of a Parquet file."""

Record = dict[str, Any]


def open_writer(path: str | Path, run: Record) -> Writer:
    """The writer for an output by its name: `.jsonl`, or `.parquet` for a folder of them.

    Args:
        run: what decides the results (task, texts, model); a run may only go on with its own.

    Raises:
        DataError: another run writes there (`data/busy`), it holds results of another run
            (`data/changed`), or it cannot be written (`data/write`).
    """
    kinds = {".jsonl": JsonLines, ".parquet": ParquetFolder}
    return kinds[check_output(path).suffix.lower()](Path(path), run)


def check_output(path: str | Path) -> Path:
    """The path, if its name and folder are fit for results; to be asked before a model is loaded.

    Raises:
        DataError: another suffix (`data/format`), or no such folder (`data/write`).
    """
    path = Path(path)
    if path.suffix.lower() not in (".jsonl", ".parquet"):
        raise DataError(f"{path.name} must end in .jsonl or .parquet.", "data/format")
    if not path.absolute().parent.is_dir():
        raise DataError(f"The folder of {path} does not exist. Make it first.", "data/write")
    return path


class Writer:
    """Base of both. Use it as a context manager.

    Attributes:
        done: ids of the items that have a record.
        failed: how many of the records are errors.
    """

    def __init__(self, path: Path, run: Record):
        self.path, self.done, self.failed = path, set(), 0
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"Another run is writing {path.name}. Wait for it, or choose another --out.",
                "data/busy",
            ) from None
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error.strerror}).", "data/write") from None
        try:
            self._check_run(path.with_name(f".{path.name}.run"), run)
            self.open()
        except OSError as error:
            self._lock.release()
            raise _unwritten(path, error) from None
        except BaseException:
            self._lock.release()
            raise

    def _check_run(self, file: Path, run: Record) -> None:
        """A run goes on only with its own settings."""
        wanted = json.loads(json.dumps(run))
        begun = any(self.path.iterdir()) if self.path.is_dir() else _size(self.path) > 0
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if begun else wanted
        except (OSError, ValueError):
            found = {}
        changed = sorted(name for name in wanted if found.get(name) != wanted[name])
        if changed:
            raise DataError(
                f"{self.path.name} was written by another command: its {', '.join(changed)} "
                "differed. Choose another --out, or remove the file.",
                "data/changed",
            )
        draft = file.with_name(file.name + ".new")
        draft.write_text(json.dumps(wanted), encoding="utf-8")
        os.replace(draft, file)

    def _remember(self, record: Record) -> None:
        self.done.add(record["id"])
        self.failed += "error" in record

    def write(self, records: Sequence[Record]) -> None:
        """Append records; those whose item has one already are left out.

        Raises:
            DataError: the disk is full or gone (`data/write`); what was written stays valid.
        """
        fresh = {record["id"]: record for record in records if record["id"] not in self.done}
        if not fresh:
            return
        try:
            self.append(list(fresh.values()))
        except OSError as error:
            raise _unwritten(self.path, error) from None
        for record in fresh.values():
            self._remember(record)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.close()
        except OSError as error:
            raise _unwritten(self.path, error) from None
        finally:
            self._lock.release()

    def open(self) -> None:
        """Read what is there."""
        raise NotImplementedError

    def append(self, records: list[Record]) -> None:
        """Write records whole."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is still held back."""
        raise NotImplementedError


class JsonLines(Writer):
    """A JSON object a line."""

    _file: BinaryIO

    def open(self) -> None:
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        end = 0
        with open(self.path, "rb") as file:
            for line in file:
                record = _parsed(line)
                if record is None:
                    if line.endswith(b"\n"):
                        raise DataError(
                            f"{self.path.name} holds a line that is no record. Choose another "
                            "--out, or remove the file.",
                            "data/changed",
                        )
                    break  # half a line, left by a kill
                end += len(line)
                self._remember(record)
        self._file.truncate(end)

    def append(self, records: list[Record]) -> None:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        data, start = memoryview(lines.encode()), self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(start)
            raise

    def close(self) -> None:
        self._file.close()


class ParquetFolder(Writer):
    """A folder of Parquet files with the columns `id`, `error`, and `result`, which is JSON."""

    def open(self) -> None:
        import pyarrow.parquet

        self._parquet, self._held = pyarrow.parquet, []
        self.path.mkdir(exist_ok=True)
        self._parts = sorted(self.path.glob("part-*.parquet"))
        for part in self._parts:
            table = pyarrow.parquet.read_table(part, columns=["id", "error"])
            errors = table.column("error").to_pylist()
            for name, error in zip(table.column("id").to_pylist(), errors, strict=True):
                self._remember({"id": name} | ({} if error is None else {"error": error}))

    def append(self, records: list[Record]) -> None:
        self._held += records
        if len(self._held) >= RECORDS_A_PART:
            self.close()

    def close(self) -> None:
        if not self._held:
            return
        import pyarrow

        rows = [
            {
                "id": record["id"],
                "error": record["error"]["message"] if "error" in record else None,
                "result": json.dumps(record, ensure_ascii=False),
            }
            for record in self._held
        ]
        schema = pyarrow.schema([(name, pyarrow.string()) for name in ("id", "error", "result")])
        part = self.path / f"part-{len(self._parts):06d}.parquet"
        draft = part.with_name(f".{part.name}.new")
        self._parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), draft)
        os.replace(draft, part)
        self._parts.append(part)
        self._held = []


class PrintedLines:
    """Records on standard output, for a pipe; nothing is remembered of an earlier run."""

    def __init__(self):
        self.done, self.failed = set(), 0

    def write(self, records: Sequence[Record]) -> None:
        """As of a `Writer`."""
        for record in records:
            self.done.add(record["id"])
            self.failed += "error" in record
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def __enter__(self) -> PrintedLines:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def read_records(path: str | Path) -> Iterable[Record]:
    """The records of a finished or unfinished output."""
    path = Path(path)
    if path.is_dir():
        import pyarrow.parquet

        for part in sorted(path.glob("part-*.parquet")):
            for text in pyarrow.parquet.read_table(part).column("result").to_pylist():
                yield json.loads(text)
        return
    with open(path, "rb") as file:
        yield from filter(None, map(_parsed, file))


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(record, dict) and "id" in record
    return record if whole else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _unwritten(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path.name} cannot be written ({error.strerror}). What was written stays valid: make "
        "room and run the same command again.",
        "data/write",
    )
