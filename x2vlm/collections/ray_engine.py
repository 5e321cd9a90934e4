"""A collection on Ray Data: read by Ray's own readers, one model in each worker process, on this
machine or on a cluster.

The workers return records, and the driver writes them with the same writer as a run without Ray:
a record stands in the output once, whatever Ray did twice because a worker died, and a run that was
killed as a whole goes on.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import ray
import ray.data

from x2vlm.collections.runner import Job, Progress, batched
from x2vlm.collections.sources import (
    CLOUD,
    MEDIA_SUFFIXES,
    Columns,
    Item,
    list_inputs,
    open_collection,
    texts_of,
    unusable,
)
from x2vlm.collections.writer import Writer
from x2vlm.errors import DataError, MediaError, X2VLMError
from x2vlm.inference.predictor import Predictor
from x2vlm.serving import set_threads, usable_cores

READER_CPUS, WORKER_CPUS = 0.1, 0.9
"""Readers and a worker share a core: workers that took all cores would wait for readers forever."""
ROWS_AT_ONCE = 32
BLOCKS_A_WORKER = 4
"""Ray reads few files as one block, which one worker would get."""
SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("path", pyarrow.string()),
        ("bytes", pyarrow.binary()),
        ("texts", pyarrow.string()),
        ("error", pyarrow.string()),
    ]
)
"""A row of any reader: the contents or the path of a file, or what is wrong with the item."""


class Worker:
    """One model in a process of Ray.

    Args:
        model: arguments of `Predictor.from_pretrained`.
    """

    def __init__(self, model: Mapping[str, Any], job: Job):
        os.environ["X2VLM_WORKERS"] = "1"  # the other cores have workers of their own
        set_threads(1)
        self.job, self.predictor = job, Predictor.from_pretrained(**model)

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        """Rows of `SCHEMA` to records as JSON."""
        items = [_item(row) for row in rows.to_pylist()]
        opened = [self.job.open(self.predictor, item) for item in items]
        records = self.job.records(self.predictor, items, opened)
        return pyarrow.table({"record": [json.dumps(record) for record in records]})


def run(
    job: Job,
    model: Mapping[str, Any],
    inputs: Sequence[str],
    columns: Columns,
    recursive: bool,
    writer: Writer,
    progress: Progress,
    workers: int,
    address: str | None = None,
) -> None:
    """Do the job for every item that has no record yet.

    Args:
        model: arguments of `Predictor.from_pretrained` in the workers.
        workers: processes with a model each, on a GPU each where `model` names one.
        address: of a Ray cluster, by default one that is started here and stopped again.

    Raises:
        DataError: an input is missing, empty or lacks a column (`data/*`).
    """
    started = connect(workers, address)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        done = ray.put(frozenset(writer.done))
        rows = functools.reduce(
            ray.data.Dataset.union, datasets(inputs, columns, recursive, done, workers)
        )
        gpu = str(model.get("device") or "cpu").startswith("cuda")
        results = rows.map_batches(
            Worker,
            fn_constructor_args=(dict(model), job),
            compute=ray.data.ActorPoolStrategy(size=workers),
            batch_size=ROWS_AT_ONCE,
            batch_format="pyarrow",
            num_cpus=WORKER_CPUS,
            num_gpus=1 if gpu else 0,
        )
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            records = [json.loads(text) for text in batch.column("record").to_pylist()]
            writer.write(records)
            progress(len(records), sum("error" in record for record in records))
    except (ray.exceptions.RayError, ray.data.exceptions.SystemException) as error:
        raise X2VLMError(
            f"Ray gave up: {str(error).strip().splitlines()[-1]} What was written stays valid: run "
            "the same command again.",
            "job/crashed",
        ) from None
    finally:
        if started:
            ray.shutdown()


def connect(workers: int, address: str | None) -> bool:
    """Join a cluster, or start one here; True where it was started and is ours to stop."""
    if ray.is_initialized():
        return False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DataError(
                f"There is no Ray cluster at {address} ({str(error).splitlines()[0]}). Start one "
                "with `ray start --head`, or leave --address out.",
                "data/missing",
            ) from None
        return True
    cores = max(usable_cores(), workers)
    ray.init(num_cpus=cores, include_dashboard=False, **quiet)
    return True


def datasets(
    inputs: Sequence[str], columns: Columns, recursive: bool, done: Any, workers: int
) -> Iterator[ray.data.Dataset]:
    """Rows of `SCHEMA` for every input, without those that are done already."""
    for kind, names in list_inputs(inputs, recursive):
        reading: dict[str, Any] = {"num_cpus": READER_CPUS}
        where = {_absolute(name): name for name in names}
        paths = list(where)
        if kind == "table":
            listed = (_row(item) for item in open_collection(names, columns))
            blocks = batched(listed, ROWS_AT_ONCE)
            tables = [pyarrow.Table.from_pylist(block, schema=SCHEMA) for block in blocks]
            yield ray.data.from_arrow(tables).map_batches(
                drop_done, fn_kwargs={"done": done}, batch_format="pyarrow", num_cpus=READER_CPUS
            )
            continue
        if kind == "parquet":
            found = ray.data.read_parquet(
                paths, include_paths=True, include_row_hash=True, **reading
            )
        elif kind == "shard":
            found = ray.data.read_webdataset(paths, include_paths=True, decoder=None, **reading)
        else:
            if kind == "cloud":
                reading["file_extensions"] = [suffix[1:] for suffix in MEDIA_SUFFIXES]
            else:
                blocks = max(BLOCKS_A_WORKER * workers, len(paths) // ROWS_AT_ONCE)
                reading["override_num_blocks"] = min(blocks, len(paths))
            found = ray.data.read_binary_files(paths, include_paths=True, **reading)
        yield found.map_batches(
            to_rows,
            fn_kwargs={"kind": kind, "columns": columns, "where": where, "done": done},
            batch_format="pyarrow",
            batch_size=ROWS_AT_ONCE,
            num_cpus=READER_CPUS,
        )


def to_rows(
    table: pyarrow.Table, kind: str, columns: Columns, where: Mapping[str, str], done: Any
) -> pyarrow.Table:
    """What a reader of Ray gives as rows of `SCHEMA`."""
    make = {"parquet": _parquet_item, "shard": _shard_item}.get(kind, _file_item)
    rows = [
        _row(make(row, where.get(row["path"], row["path"]), columns)) for row in table.to_pylist()
    ]
    return drop_done(pyarrow.Table.from_pylist(rows, schema=SCHEMA), done)


def drop_done(table: pyarrow.Table, done: Any) -> pyarrow.Table:
    """Rows whose item has no record yet; `done` is a set, or Ray's reference to one."""
    done = ray.get(done) if isinstance(done, ray.ObjectRef) else done
    return table.filter(pyarrow.array([name not in done for name in table["id"].to_pylist()]))


def _file_item(row: Mapping[str, Any], source: str, columns: Columns) -> Item:
    return Item(source, row["bytes"])


def _parquet_item(row: Mapping[str, Any], source: str, columns: Columns) -> Item:
    """A row is named by its column `id` or `key`; without one by a hash of its place."""
    image = row.get(columns.image)
    if isinstance(image, dict):  # as the package datasets stores images
        image = image.get("bytes") or image.get("path")
    named = ("id", "key", "row_hash")
    name = f"{source}#{next(row[key] for key in named if row.get(key) is not None)}"
    texts, known = texts_of(row, columns.text)
    good = isinstance(image, (str, bytes)) and image and known
    return Item(name, image if good else unusable(name, columns), texts)


def _shard_item(row: Mapping[str, Any], source: str, columns: Columns) -> Item:
    name = f"{source}/{row['__key__']}"
    media = next((row[k] for k in row if f".{k}" in MEDIA_SUFFIXES and row[k]), None)
    fields = row.get("json") or b"{}"
    try:
        fields = fields if isinstance(fields, dict) else json.loads(fields)
    except ValueError:
        fields = {}
    texts, known = texts_of(fields, columns.text)
    return Item(name, media if media and known else unusable(name, columns), texts)


def _row(item: Item) -> dict[str, Any]:
    media = item.media
    error = None
    if isinstance(media, MediaError):
        media, error = None, json.dumps([media.message, media.code])
    return {
        "id": item.id,
        "path": media if isinstance(media, str) else None,
        "bytes": bytes(media) if isinstance(media, (bytes, bytearray)) else None,
        "texts": None if item.texts is None else json.dumps(item.texts),
        "error": error,
    }


def _item(row: Mapping[str, Any]) -> Item:
    texts = None if row["texts"] is None else tuple(json.loads(row["texts"]))
    if row["error"] is not None:
        return Item(row["id"], MediaError(*json.loads(row["error"])), texts)
    return Item(row["id"], row["bytes"] if row["path"] is None else row["path"], texts)


def _absolute(name: str) -> str:
    return name if name.startswith(CLOUD) else str(Path(name).absolute())
