"""Arguments that several commands share: the model, its options, and texts."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from x2vlm.cli.output import print_download, printable, say
from x2vlm.errors import ParameterError
from x2vlm.known import DEFAULT
from x2vlm.options import TASKS, Options

FLAGS = {"num_beams": "beams", "num_captions": "candidates", "do_sample": "sample"}
"""Options whose flag is shorter than their name."""


def add_options(parser: argparse.ArgumentParser, options: type[Options]) -> None:
    """A flag for every option of `x2vlm.options`; one that is not given keeps its default."""
    for option in options.table().values():
        flag = "--" + FLAGS.get(option.name, option.name).replace("_", "-")
        shared = {"dest": option.name, "default": argparse.SUPPRESS}
        if option.kind is bool:
            parser.add_argument(flag, action="store_true", help=option.help, **shared)
            continue
        known = "" if option.default is None else f" (default {option.default})"
        parser.add_argument(
            flag,
            type=option.kind,
            choices=option.choices or None,
            help=option.help + known,
            **shared,
        )


def given(arguments: argparse.Namespace, options: type[Options]) -> dict[str, Any]:
    """The options that were given."""
    return {name: getattr(arguments, name) for name in options.table() if name in arguments}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, where and how it runs."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help=f"name, folder or file (default {DEFAULT}); TASK=NAME, several times, for a suite of "
        "one checkpoint a task",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add_allow_extra(parser)


def add_allow_extra(parser: argparse.ArgumentParser) -> None:
    """The flag of `x2vlm.checkpoint.load`."""
    parser.add_argument(
        "--allow-extra",
        action="store_true",
        help="leave out weights of the checkpoint that the model has no place for",
    )


def load_predictor(arguments: argparse.Namespace) -> Any:
    """The Predictor that was asked for."""
    from x2vlm.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(**model_arguments(arguments), progress=print_download)
    if left_out := predictor.info.left_out:
        say(printable(f"note: left out of the checkpoint: {', '.join(left_out)}"))
    return predictor


def model_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Predictor.from_pretrained`."""
    return {
        "name_or_path": models(arguments.model),
        "device": arguments.device,
        "dtype": arguments.dtype,
        "allow_extra": arguments.allow_extra,
    }


def models(named: list[str] | None) -> str | dict[str, str]:
    """`--model NAME`, or `--model TASK=NAME` several times."""
    if not named:
        return DEFAULT
    pairs = [item.partition("=") for item in named]
    if all(sign and task in TASKS for task, sign, _ in pairs):
        return {task: name for task, _, name in pairs}
    if len(named) > 1:
        raise ParameterError(
            f"Give one --model, or several TASK=NAME. Tasks: {', '.join(TASKS)}.", "param/range"
        )
    return named[0]  # a path may hold a =


def lines_of(items: list[str]) -> list[str]:
    """The arguments themselves, or for `-` the lines of standard input."""
    if items != ["-"]:
        return items
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise ParameterError("Standard input holds no lines. Write one text a line.", "param/range")
    return lines
