"""`x2vlm inspect`: how well one checkpoint, or two, do on a data set with known truth; and
`x2vlm calibrate`: which heat maps of a checkpoint point best there."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from x2vlm.checks import check_number
from x2vlm.cli.arguments import add_model, model_arguments
from x2vlm.cli.collections import progress_bar
from x2vlm.cli.output import print_download, say
from x2vlm.errors import ParameterError
from x2vlm.known import DEFAULT
from x2vlm.options import MapChoice
from x2vlm.settings import SETTINGS_FILE, Settings


def add_inspection(verbs: Any) -> None:
    """The commands `inspect` and `calibrate`."""
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
        help=f"what to measure (default {DEFAULT}); twice: side by side",
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

    text = "choose the heat maps of a checkpoint that point best, and store the choice"
    calibrate = verbs.add_parser("calibrate", help=text, description=text)
    calibrate.set_defaults(run=run_calibrate)
    calibrate.add_argument("checkpoint", help="model folder; its predictor.json is written")
    calibrate.add_argument("data", help="validation data with boxes, as for inspect")
    calibrate.add_argument("--limit", type=int, default=200, help="images at most (default 200)")
    calibrate.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")


def run_inspect(arguments: argparse.Namespace) -> None:
    """Measure, then write the report."""
    from x2vlm.inspection.statistics import MEASURES
    from x2vlm.inspection.truth import read_truth

    names = arguments.checkpoint or arguments.model or [DEFAULT]
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


def run_calibrate(arguments: argparse.Namespace) -> None:
    """Measure, say what points how well, and write the best into the checkpoint's settings."""
    from x2vlm.inspection.truth import read_truth

    folder = Path(arguments.checkpoint)
    if not (folder / "config.json").is_file():
        raise ParameterError(
            f"{folder} is no model folder. Make one with `x2vlm convert FILE FOLDER`.",
            "param/range",
        )
    check_number("--limit", arguments.limit, 1, 10**9)
    settings, truths = Settings.read(folder), read_truth(arguments.data, arguments.limit)

    from x2vlm.inference.predictor import Predictor
    from x2vlm.inspection.calibrate import calibrate

    def tell(use: str, choice: MapChoice, pointing: float) -> None:
        say(f"  {pointing:.3f}  {use}: {described(choice)}")

    predictor = Predictor.from_pretrained(folder, arguments.device)
    found = calibrate(predictor, truths, settings.maps, tell)
    replace(settings, maps=found.choices).write(folder)
    for use, measured in found.pointing.items():
        choice = getattr(found.choices, use)
        print(f"{use}: {described(choice)}, {measured[choice]:.1%} of {found.cases[use]} texts")
    say(f"written {folder / SETTINGS_FILE}")


def described(choice: MapChoice) -> str:
    """A choice in words."""
    layer = "all layers" if choice.layer is None else f"layer {choice.layer}"
    head = {None: "all heads", "max": "the strongest head"}.get(choice.head, f"head {choice.head}")
    return f"{choice.target} by {choice.method}, {layer}, {head}"
