"""Many images at once on the command line: the flags of collections, the run that writes their
records, and `x2vlm search`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from x2vlm.checks import check_number
from x2vlm.cli.arguments import add_model, load_predictor, model_arguments
from x2vlm.cli.output import print_json, print_progress, printable, say
from x2vlm.collections.sources import Columns, is_collection, list_inputs, open_collection
from x2vlm.collections.writer import PrintedLines, check_output, open_writer
from x2vlm.errors import ParameterError

OUTPUTS = (".jsonl", ".parquet")
SECONDS_BETWEEN_LINES = 30
"""Of the progress where nobody sees it renew itself."""


def add_collection(parser: argparse.ArgumentParser, texts: bool) -> None:
    """The flags of collections; `texts` for commands that ask something of every image."""
    group = parser.add_argument_group(
        "many images",
        "INPUT may be files, folders, 'patterns/*.jpg', tables (.csv, .tsv, .jsonl), WebDataset "
        "shards (.tar), or - for a list of paths on standard input. --out FILE.jsonl takes a "
        "record an image; the same command goes on after an interruption.",
    )
    group.add_argument("--recursive", action="store_true", help="also the folders of folders")
    group.add_argument(
        "--image-column", default="image", help="of a table: the paths (default image)"
    )
    if texts:
        group.add_argument(
            "--text", action="append", help="ask this (several times); all arguments are then INPUT"
        )
        group.add_argument(
            "--text-column", help="of a table or of the shards' JSON: what to ask of each image"
        )
    group.add_argument(
        "--max-errors",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="exit with 1 if a greater share of the items failed (default 0.1)",
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="this process, or Ray Data, which also reads Parquet and s3://",
    )
    group.add_argument("--address", help="of a Ray cluster (default: one is started here)")
    group.add_argument("--workers", type=int, default=1, help="of Ray, one model each (default 1)")


def is_many(arguments: argparse.Namespace, inputs: Sequence[str]) -> bool:
    """Whether the command is about a collection and not about one file."""
    out = getattr(arguments, "out", None) or ""
    return is_collection(inputs) or out.lower().endswith(OUTPUTS)


def run_collection(
    arguments: argparse.Namespace,
    inputs: Sequence[str],
    task: str,
    texts: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> int:
    """One record an item, to `--out` or standard output; returns the exit code."""
    columns = Columns(arguments.image_column, getattr(arguments, "text_column", None))
    local = arguments.engine == "local"
    if not local:
        check_number("--workers", arguments.workers, 1, 10_000)
        list_inputs(inputs, arguments.recursive)
    source = open_collection(inputs, columns, arguments.recursive) if local else None
    if arguments.out:
        check_output(arguments.out)

    from x2vlm.collections.runner import Job, run

    job = Job(task, tuple(texts), dict(options or {}), arguments.frames)
    predictor = load_predictor(arguments)
    predictor.require(task)
    described = job.described(predictor)
    opened = open_writer(arguments.out, described) if arguments.out else PrintedLines()
    count = source.count if local else None
    with opened as writer, progress_bar(count, writer) as advance:
        if local:
            run(job, predictor, source, writer, advance)
        else:
            del predictor  # the workers have their own
            ray_engine().run(
                job,
                model_arguments(arguments),
                inputs,
                columns,
                arguments.recursive,
                writer,
                advance,
                arguments.workers,
                arguments.address,
            )
    return told(writer, arguments)


def ray_engine() -> Any:
    """The module of the Ray engine.

    Raises:
        ParameterError: Ray is not installed (`param/range`).
    """
    try:
        from x2vlm.collections import ray_engine
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"--engine ray needs the package {error.name}. Install it: pip install 'x2vlm[ray]'.",
            "param/range",
        ) from None
    return ray_engine


def told(writer: Any, arguments: argparse.Namespace) -> int:
    """Says how many items have a record and how many failed; the exit code."""
    done, failed = len(writer.done), writer.failed
    where = f" in {arguments.out}" if arguments.out else ""
    say(f"{done:,} items{where}, {failed:,} of them errors")
    return 1 if done and failed / done > arguments.max_errors else 0


@contextmanager
def progress_bar(count: int | None, writer: Any) -> Iterator[Any]:
    """A function of (items, errors among them) that shows items a second and the time left; what
    the writer has already is done."""
    from tqdm import tqdm

    seen = sys.stderr.isatty()
    pause = {"mininterval": 0.2 if seen else SECONDS_BETWEEN_LINES, "maxinterval": 60}
    with tqdm(
        total=count, initial=len(writer.done), unit=" items", file=sys.stderr, **pause
    ) as bar:
        errors = writer.failed

        def advance(items: int, failures: int) -> None:
            nonlocal errors
            errors += failures
            if errors:
                bar.set_postfix(errors=errors, refresh=False)
            bar.update(items)

        yield advance


def add_search(verbs: Any) -> None:
    """The command `search`."""
    text = "find the images of a folder that fit a text"
    search = verbs.add_parser("search", help=text, description=text)
    search.set_defaults(run=run_search)
    search.add_argument("folder")
    search.add_argument("text")
    add_model(search)
    search.add_argument("--top", type=int, default=10, help="images to list (default 10)")
    search.add_argument("--recursive", action="store_true", help="also the folders of the folder")
    search.add_argument("--index", metavar="DIR", help="its files (default: .x2vlm in the folder)")
    search.add_argument(
        "--no-rerank", action="store_true", help="by features alone, without the matching head"
    )
    search.add_argument("--json", action="store_true", help="print JSON")


def run_search(arguments: argparse.Namespace) -> None:
    """Build or refresh the index, then search."""
    from x2vlm.collections.index import ImageIndex, check_folder

    top = check_number("--top", arguments.top, 1, 10_000)
    check_folder(arguments.folder, arguments.recursive)
    predictor = load_predictor(arguments)
    index = ImageIndex.of_folder(
        predictor,
        arguments.folder,
        arguments.recursive,
        arguments.index,
        lambda done, total: print_progress(done / total, f"Indexing {total:,} images"),
    )
    for error in index.failed.values():
        say(f"left out: {error}")
    found = index.search(arguments.text, top, not arguments.no_rerank)
    if arguments.json:
        print_json({"text": arguments.text, "images": [dataclasses.asdict(one) for one in found]})
        return
    for one in found:
        match = "" if one.match is None else f"match {one.match:.2f}  "
        print(printable(f"{match}cosine {one.similarity:.2f}  {one.path}"))


def add_export(verbs: Any) -> None:
    """The command `export`."""
    text = "boxes of `x2vlm ground ... --out` for other tools"
    parser = verbs.add_parser("export", help=text, description=text)
    parser.set_defaults(run=run_export)
    parser.add_argument("records", help="the .jsonl or .parquet")
    parser.add_argument("out", help="a .json file (coco) or a folder (fiftyone)")
    parser.add_argument("--format", choices=("coco", "fiftyone"), default="coco")


def run_export(arguments: argparse.Namespace) -> None:
    """Write the records in another form."""
    from x2vlm.collections.exports import export
    from x2vlm.collections.writer import read_records

    if not Path(arguments.records).exists():
        raise ParameterError(f"There is no {arguments.records}. Check its name.", "param/range")
    written = export(read_records(arguments.records), arguments.format, Path(arguments.out))
    say(f"written {', '.join(map(str, written))}")
