"""The command `x2vlm`: its grammar and its exit codes.

Exit codes: 0 done, 1 the input was refused (of a collection: too many items failed), 2 wrong usage,
3 the model or checkpoint cannot be used, 130 interrupted. Answers go to standard output, everything
else to standard error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys

from x2vlm.cli.collections import add_export, add_search
from x2vlm.cli.inference import add_inference
from x2vlm.cli.inspection import add_inspection
from x2vlm.cli.management import PASSED_ON, add_management
from x2vlm.cli.output import print_json, say
from x2vlm.errors import Cancelled, CheckpointError, ConfigError, X2VLMError

REFUSED, MODEL, INTERRUPTED = 1, 3, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    arguments = None
    try:
        arguments = _parse(argv)
        return arguments.run(arguments) or 0
    except SystemExit as stop:  # of argparse
        return int(stop.code or 0)
    except (KeyboardInterrupt, Cancelled):
        say("interrupted")
        return INTERRUPTED
    except X2VLMError as error:
        say(str(error))
        if getattr(arguments, "json", False):
            print_json({"error": {"message": error.message, "code": error.code}})
        return MODEL if isinstance(error, (CheckpointError, ConfigError)) else REFUSED


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    arguments.rest = rest
    unknown = [one for one in rest if one.startswith("-") and one != "-"]
    if arguments.run in PASSED_ON:
        return arguments
    if hasattr(arguments, "inputs"):
        arguments.inputs += [one for one in rest if one not in unknown]  # those behind an option
    else:
        unknown = rest
    if unknown:
        parser.error(f"unknown argument: {unknown[0]}")
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="x2vlm", description="Describe, ask, find and see why, in images and videos."
    )
    parser.add_argument("--version", action="version", version=f"x2vlm {_version()}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    add_inference(verbs)
    add_search(verbs)
    add_export(verbs)
    add_inspection(verbs)
    add_management(verbs)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("x2vlm")
    except importlib.metadata.PackageNotFoundError:
        return "from a clone, not installed"
