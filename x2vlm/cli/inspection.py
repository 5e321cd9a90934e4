"""`x2vlm inspect`: how well one checkpoint, or two, do on a data set with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from x2vlm.checks import check_number
from x2vlm.cli.arguments import add_model, model_arguments
from x2vlm.cli.collections import progress_bar
from x2vlm.cli.output import print_download, say
from x2vlm.errors import ParameterError


def add_inspection(verbs: Any) -> None:
    """The command `inspect`."""
    text = "measure checkpoints on a data set and write a report"
    inspect = verbs.add_parser("inspect", help=text, description=text)
    inspect.set_defaults(run=run_inspect)
    inspect.add_argument(
        "data",
        help="folder with annotations.json, .json (COCO or a list), .jsonl of entries, or stickers",
    )
    inspect.add_argument(
        "--checkpoint",
        action="append",
        metavar="NAME",
        help="what to measure (default mini); twice: side by side",
    )
    add_model(inspect)
    inspect.add_argument("--out", default="report", help="OUT.html and OUT.json (default report)")
    inspect.add_argument("--limit", type=int, help="images at most")
    inspect.add_argument(
        "--faithfulness",
        type=int,
        default=20,
        metavar="IMAGES",
        help="of how many the maps are tested by deletion, which is slow (default 20)",
    )


def run_inspect(arguments: argparse.Namespace) -> None:
    """Measure, then write the report."""
    from x2vlm.inspection.statistics import MEASURES
    from x2vlm.inspection.truth import read_truth

    names = arguments.checkpoint or arguments.model or ["mini"]
    if len(names) > 2:
        raise ParameterError("Give one --checkpoint, or two to compare.", "param/range")
    if arguments.limit is not None:
        check_number("--limit", arguments.limit, 1, 10**9)
    check_number("--faithfulness", arguments.faithfulness, 0, 10**9)
    out = Path(arguments.out)
    if not out.absolute().parent.is_dir():
        raise ParameterError("The folder for --out does not exist. Make it first.", "param/range")
    truths = read_truth(arguments.data, arguments.limit)

    from x2vlm.inference.predictor import Predictor
    from x2vlm.inspection.measure import inspect
    from x2vlm.inspection.report import summarize, write_report

    predictors, inspections = [], []
    for name in names:
        chosen = model_arguments(arguments) | {"name_or_path": name}
        predictors.append(Predictor.from_pretrained(**chosen, progress=print_download))
        with progress_bar(len(truths), SimpleNamespace(done=(), failed=0)) as advance:
            inspections.append(
                inspect(predictors[-1], truths, Path(name).name, arguments.faithfulness, advance)
            )
    summary = summarize(arguments.data, inspections)
    written = write_report(out, summary, truths, inspections, predictors)
    for model in summary["models"]:
        print(f"{model['name']}: {summary['images']:,} images")
        for measure, found in model["measures"].items():
            if found["value"] is not None:
                print(f"  {found['value']:.3f}  {MEASURES[measure][0]}")
    say(f"written {' and '.join(map(str, written))}")
