"""Commands that ask no model: convert, doctor, and those of the repository: demo, tune."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

from x2vlm import doctor
from x2vlm.cli.arguments import add_allow_extra
from x2vlm.cli.output import print_json, say
from x2vlm.config import size_from_text
from x2vlm.errors import ParameterError


def add_management(verbs: Any) -> None:
    """The commands that ask no model."""
    convert = verbs.add_parser("convert", help="turn an official checkpoint into a model folder")
    convert.set_defaults(run=run_convert)
    convert.add_argument("source", help="file, or the name of a known checkpoint")
    convert.add_argument("destination", help="folder to write")
    convert.add_argument("--report", action="store_true", help="list what happened to every key")
    convert.add_argument(
        "--tokenizer", help="folder or vocabulary file, if none lies beside the checkpoint"
    )
    convert.add_argument(
        "--image-size",
        type=size_from_text,
        metavar="SIZE",
        help="pixels to run at, a side (384) or height and width (384x128); default: as trained",
    )
    convert.add_argument(
        "--num-frames", type=int, help="frame positions of videos (default: as trained)"
    )
    convert.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the stored weights"
    )
    add_allow_extra(convert)
    convert.add_argument("--json", action="store_true", help="the report as JSON")

    health = verbs.add_parser("doctor", help="what is installed, cached and ready")
    health.set_defaults(run=run_doctor)
    health.add_argument("--json", action="store_true")
    health.add_argument("--verify", metavar="FOLDER", help="compare its weights with their SHA-256")

    demo = verbs.add_parser("demo", help="open the app; further arguments go to it", add_help=False)
    demo.set_defaults(run=run_demo)

    tune = verbs.add_parser(
        "tune", help="fine-tune a model on images and texts of one's own", add_help=False
    )
    tune.set_defaults(run=run_tune)


def run_convert(arguments: argparse.Namespace) -> None:
    """Write a model folder and say what happened to the weights."""
    import torch

    from x2vlm.modeling.build import convert

    report = convert(
        arguments.source,
        arguments.destination,
        tokenizer=arguments.tokenizer,
        image_size=arguments.image_size,
        num_frames=arguments.num_frames,
        dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        allow_extra=arguments.allow_extra,
    )
    for note in report.notes:
        say(f"note: {note}")
    if arguments.json:
        print_json(report.to_dict())
    else:
        print(str(report) if arguments.report else str(report).splitlines()[0])


def run_doctor(arguments: argparse.Namespace) -> None:
    """Say what is installed, or whether a folder is whole."""
    folder = arguments.verify
    findings = doctor.verified(folder) if folder else doctor.examine()
    if arguments.json:
        print_json(findings)
    else:
        print(doctor.told(findings))


def run_demo(arguments: argparse.Namespace) -> None:
    """Start the app of the repository."""
    _run_from_clone("app.py", "app", arguments.rest)


def run_tune(arguments: argparse.Namespace) -> None:
    """Start the fine-tuning of the repository."""
    _run_from_clone("train/tune.py", "training", arguments.rest)


PASSED_ON = (run_demo, run_tune)
"""Commands whose arguments go to a program of the repository as they are."""


def _run_from_clone(file: str, what: str, arguments: list[str]) -> None:
    """Run a program that the installed package lacks. Raises `ParameterError`."""
    root = Path(__file__).resolve().parents[2]
    if not (root / file).is_file():
        raise ParameterError(
            f"The installed package holds the model alone, without the {what}. Clone the "
            f"repository and run `python {file}` there.",
            "param/range",
        )
    sys.argv = [str(root / file), *arguments]
    sys.path.insert(0, str(root))
    runpy.run_path(str(root / file), run_name="__main__")
