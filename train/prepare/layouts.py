"""The rows of people's own data in the layouts that they come in.

    pairs.csv, .tsv, .json, .jsonl, .parquet   a row names an image and says something of it
    annotations.json of COCO                   captions, or boxes with their classes
    folder/a.jpg and folder/a.txt              the text lies beside the image, a line a text
    folder/dog/a.jpg                           the folder's name says what the image shows
    folder/metadata.csv (or .jsonl)            as a table; its file names lie in the folder
    dataset                                    what `save_to_disk` of Hugging Face `datasets` wrote,
                                               or a folder of its parquet files

A row keeps the names of its columns; `train.prepare.own` finds out what they mean.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.data.entries import open_entries
from train.data.tars import IMAGE_SUFFIXES
from x2vlm.errors import DataError, X2VLMError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, files and values that say which part a row belongs to."""
DELIMITERS = ",;\t|"
LAYOUTS = __doc__.split("\n\n")[1]


@dataclass(frozen=True)
class Row:
    """One row: where it stands, its columns, and the part that its file or folder names, if any."""

    name: str
    columns: dict[str, Any]
    split: str = ""


def read_rows(data: Path) -> Iterator[Row]:
    """All rows of `data`, a file or a folder.

    Raises:
        DataError: it does not exist (`data/missing`), is of no known layout (`data/format`) or
            cannot be read (`data/json`, `data/entry`).
    """
    if not data.exists():
        raise DataError(f"{data} does not exist.", "data/missing")
    if data.is_file():
        yield from _table(data)
    elif (data / "dataset_dict.json").is_file():
        for split in json.loads((data / "dataset_dict.json").read_text("utf-8"))["splits"]:
            yield from _arrow(data / split, SPLITS.get(split, split))
    elif (data / "state.json").is_file():
        yield from _arrow(data, "")
    elif tables := _tables_of(data):
        for path in tables:
            yield from _table(path, _split_of(path.relative_to(data)))
    else:
        yield from _images(data)


def _tables_of(folder: Path) -> list[Path]:
    """`metadata` tables of a folder and its parts, or parquet files anywhere in it."""
    names = [f"{part}metadata.{kind}" for part in ("", "*/") for kind in ("csv", "jsonl")]
    found = sorted(path for name in names for path in folder.glob(name))
    return found or sorted(folder.rglob("*.parquet"))


def _split_of(path: Path) -> str:
    """The part that the first folder of a path, or the beginning of its file's name, stands for."""
    words = (path.parts[0].lower(), path.name.lower().partition("-")[0].partition(".")[0])
    return next((SPLITS[word] for word in words if word in SPLITS), "")


def _table(path: Path, split: str = "") -> Iterator[Row]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow.parquet

        with _readable(path):
            file = pyarrow.parquet.ParquetFile(path)
        batches = file.iter_batches(64)
        yield from _arrow_rows(path.name, file.schema_arrow, batches, split)
    elif kind in (".csv", ".tsv"):
        yield from _csv(path, split)
    elif kind == ".json" and (content := _coco(path)):
        yield from _coco_rows(path, content)
    elif kind in (".json", ".jsonl"):
        entries = open_entries(path, "")
        for index in range(len(entries)):
            try:
                yield Row(entries.name(index), entries.entry(index), split)
            except X2VLMError as error:
                yield Row(f"{entries.name(index)}: {error.message}", {}, split)
    else:
        raise DataError(f"{path.name} is of no known layout. Known are:\n{LAYOUTS}", "data/format")


class _readable:
    """Turns what pyarrow raises of a damaged file into a `DataError`."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError | ValueError):
            raise DataError(f"{self.path.name} is damaged ({error}).", "data/entry") from None


def _csv(path: Path, split: str) -> Iterator[Row]:
    """Comma, semicolon, tab or bar; UTF-8, else Windows-1252, which Excel writes."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        print(f"{path.name} is not UTF-8; it is read as Windows-1252.")
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    for row in reader:
        # None holds what stands beyond the last column, or is the value of a missing one
        columns = {key.strip(): value or "" for key, value in row.items() if key is not None}
        yield Row(f"{path.name}, line {reader.line_num}", columns, split)


def _coco(path: Path) -> dict[str, Any] | None:
    """The content of a COCO file; None for JSON of another form."""
    with path.open("rb") as file:
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
            return None
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON ({error}).", "data/json") from None
    if {"images", "annotations"} <= content.keys():
        return content
    raise DataError(
        f"{path.name} is an object with the keys {', '.join(list(content)[:5])}; expected is a "
        "list of objects, or COCO's form with `images` and `annotations`.",
        "data/format",
    )


def _coco_rows(path: Path, content: dict[str, Any]) -> Iterator[Row]:
    try:
        files = {image["id"]: image["file_name"] for image in content["images"]}
        classes = {found["id"]: found["name"] for found in content.get("categories", ())}
        for number, entry in enumerate(content["annotations"], start=1):
            columns = {"image": files.get(entry["image_id"], ""), "image_id": entry["image_id"]}
            if "caption" in entry:
                columns["caption"] = entry["caption"]
            if "bbox" in entry:
                columns |= {"box": entry["bbox"], "label": classes.get(entry.get("category_id"))}
            yield Row(f"{path.name}, annotation {number}", columns)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path.name} is not as COCO has it: {error}.", "data/format") from None


def _arrow(folder: Path, split: str) -> Iterator[Row]:
    """A split as `datasets` saves it: Arrow streams that state.json names."""
    import pyarrow.ipc

    try:
        files = json.loads((folder / "state.json").read_text("utf-8"))["_data_files"]
    except (OSError, ValueError, KeyError):
        raise DataError(
            f"{folder.name} is no whole dataset: its state.json is missing or damaged. Save it "
            "again with save_to_disk.",
            "data/format",
        ) from None
    for file in files:
        path = folder / file["filename"]
        with _readable(path), path.open("rb") as stream:
            reader = pyarrow.ipc.open_stream(stream)
            yield from _arrow_rows(f"{folder.name}/{path.name}", reader.schema, reader, split)


def _arrow_rows(name: str, schema: Any, batches: Any, split: str) -> Iterator[Row]:
    """Rows of Arrow tables; numbers of a class label become its name."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    labels = {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    number = 0
    for batch in batches:
        for columns in batch.to_pylist():
            number += 1
            for column in labels.keys() & columns.keys():
                value = columns[column]
                columns[column] = labels[column][value] if isinstance(value, int) else value
            yield Row(f"{name}, row {number}", columns, split)


def _images(folder: Path) -> Iterator[Row]:
    """Images with a text of the same name, or in folders that are named by what they show."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(
            f"The folder {folder.name} holds no images and no table. Known layouts are:\n{LAYOUTS}",
            "data/format",
        )
    with_texts = any(path.with_suffix(".txt").is_file() for path in found)
    for path in found:
        place = path.relative_to(folder)
        split, columns = _split_of(place), {"image": str(place)}
        text = path.with_suffix(".txt")
        if with_texts and text.is_file():
            lines = text.read_text("utf-8", errors="replace").splitlines()
            columns["caption"] = [line.strip() for line in lines if line.strip()]
        elif not with_texts:
            classes = [part for part in place.parts[:-1] if part.lower() not in SPLITS]
            if not classes:
                raise DataError(
                    f"{place} has no text. Put {path.stem}.txt beside it, or images of one kind "
                    "into a folder with its name, or write a table metadata.csv.",
                    "data/format",
                )
            columns["label"] = classes[-1].replace("_", " ").replace("-", " ")
        yield Row(str(place), columns, split)
