"""The command `x2vlm`: caption, ask, ground, explain, match, convert, doctor, demo.

Exit codes: 0 done, 1 the input was refused, 2 wrong usage, 3 the model or checkpoint cannot be
used, 130 interrupted. Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from x2vlm import doctor
from x2vlm.cli_output import (
    check_out,
    cut_note,
    grounding_line,
    print_answer,
    print_download,
    print_json,
    print_progress,
    save_whole,
    say,
    write_maps,
)
from x2vlm.errors import Cancelled, CheckpointError, ConfigError, ParameterError, X2VLMError
from x2vlm.options import TASKS, AnswerOptions, CaptionOptions, ExplainOptions, Options

REFUSED, USAGE, MODEL, INTERRUPTED = 1, 2, 3, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        arguments, rest = build_parser().parse_known_args(argv)
        if rest and arguments.run is not _demo:
            build_parser().error(f"unknown argument: {rest[0]}")
        arguments.rest = rest
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        arguments.run(arguments)
    except (KeyboardInterrupt, Cancelled):
        say("interrupted")
        return INTERRUPTED
    except X2VLMError as error:
        say(str(error))
        if getattr(arguments, "json", False):
            print_json({"error": {"message": error.message, "code": error.code}})
        return MODEL if isinstance(error, (CheckpointError, ConfigError)) else REFUSED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="x2vlm", description="Describe, ask, find and see why, in pictures and videos."
    )
    parser.add_argument("--version", action="version", version=f"x2vlm {_version()}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    caption = _inference(verbs, "caption", _caption, "describe a picture or clip")
    _add_options(caption, CaptionOptions)

    ask = _inference(verbs, "ask", _ask, "answer a question")
    ask.add_argument("question")
    ask.add_argument(
        "--choices",
        nargs="+",
        metavar="ANSWER",
        help="rank these answers; - reads them from standard input",
    )
    _add_options(ask, AnswerOptions)

    ground = _inference(
        verbs, "ground", _ground, "find the box of each phrase, and say what is not there"
    )
    ground.add_argument(
        "phrases", nargs="+", metavar="PHRASE", help="- reads one a line from standard input"
    )
    ground.add_argument(
        "--frame",
        type=int,
        help="which of the seen frames of a video, from 0 (default: the middle one)",
    )
    ground.add_argument(
        "--thresholds",
        nargs=2,
        type=float,
        metavar=("ABSENT", "PRESENT"),
        help="match probabilities",
    )
    ground.add_argument("--out", metavar="PNG", help="draw the boxes")

    explain = _inference(verbs, "explain", _explain, "show which patches each word rests on")
    explain.add_argument(
        "text", help="a description, a caption (--target caption) or a question (--target answer)"
    )
    _add_options(explain, ExplainOptions)
    explain.add_argument(
        "--check",
        action="store_true",
        help="blur the hottest patches and watch the match fall (slow)",
    )
    explain.add_argument(
        "--out", metavar="PNG|NPZ", help="save the maps as a picture or as numbers"
    )

    match = _inference(verbs, "match", _match, "score texts against a picture or clip")
    match.add_argument(
        "texts", nargs="+", metavar="TEXT", help="- reads one a line from standard input"
    )
    _add_management(verbs)
    return parser


def _add_management(verbs: Any) -> None:
    """The commands that ask no model."""
    convert = verbs.add_parser("convert", help="turn an official checkpoint into a model folder")
    convert.set_defaults(run=_convert)
    convert.add_argument("source", help="file, or the name of a known checkpoint")
    convert.add_argument("destination", help="folder to write")
    convert.add_argument("--report", action="store_true", help="list what happened to every key")
    convert.add_argument(
        "--tokenizer", help="folder or vocabulary file, if none lies beside the checkpoint"
    )
    convert.add_argument(
        "--image-size", type=int, help="pixels a side to run at (default: as trained)"
    )
    convert.add_argument(
        "--num-frames", type=int, help="frame positions of videos (default: as trained)"
    )
    convert.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the stored weights"
    )
    _add_allow_extra(convert)
    convert.add_argument("--json", action="store_true", help="the report as JSON")

    health = verbs.add_parser("doctor", help="what is installed, cached and ready")
    health.set_defaults(run=_doctor)
    health.add_argument("--json", action="store_true")
    health.add_argument("--verify", metavar="FOLDER", help="compare its weights with their SHA-256")

    demo = verbs.add_parser("demo", help="open the app; further arguments go to it", add_help=False)
    demo.set_defaults(run=_demo)


def _add_allow_extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-extra",
        action="store_true",
        help="leave out weights of the checkpoint that the model has no place for",
    )


def _version() -> str:
    try:
        return importlib.metadata.version("x2vlm")
    except importlib.metadata.PackageNotFoundError:
        return "from a clone, not installed"


FLAGS = {"num_beams": "beams", "num_captions": "candidates", "do_sample": "sample"}
"""Options whose flag is shorter than their name."""


def _add_options(parser: argparse.ArgumentParser, options: type[Options]) -> None:
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


def _given(arguments: argparse.Namespace, options: type[Options]) -> dict[str, Any]:
    """The options that were given."""
    return {name: getattr(arguments, name) for name in options.table() if name in arguments}


def _inference(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], None], help_text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=help_text, description=help_text)
    parser.set_defaults(run=run)
    parser.add_argument("media", help="picture or clip")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="name, folder or file (default mini); TASK=NAME, several times, for a suite of one "
        "checkpoint a task",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    _add_allow_extra(parser)
    parser.add_argument("--frames", type=int, help="frames of a video to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _open(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The Predictor and the encoded scene."""
    from x2vlm.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        _models(arguments.model),
        arguments.device,
        arguments.dtype,
        print_download,
        arguments.allow_extra,
    )
    scene = predictor.encode(arguments.media, num_frames=arguments.frames)
    for note in scene.notes:
        say(f"note: {note}")
    return predictor, scene


def _models(named: list[str] | None) -> str | dict[str, str]:
    """`--model NAME`, or `--model TASK=NAME` several times."""
    if not named:
        return "mini"
    pairs = [item.partition("=") for item in named]
    if all(sign and task in TASKS for task, sign, _ in pairs):
        return {task: name for task, _, name in pairs}
    if len(named) > 1:
        raise ParameterError(
            f"Give one --model, or several TASK=NAME. Tasks: {', '.join(TASKS)}.", "param/range"
        )
    return named[0]  # a path may hold a =


def _caption(arguments: argparse.Namespace) -> None:
    predictor, scene = _open(arguments)
    captions = predictor.caption(
        scene, progress=print_progress, **_given(arguments, CaptionOptions)
    )
    lines = [c.text if c.match is None else f"{c.text}  (match {c.match:.2f})" for c in captions]
    print_answer(
        arguments.json,
        predictor.info,
        scene,
        {"captions": [caption.to_dict() for caption in captions]},
        lines,
    )


def _ask(arguments: argparse.Namespace) -> None:
    choices = _lines(arguments.choices) if arguments.choices else None
    predictor, scene = _open(arguments)
    answers = predictor.answer(
        scene, arguments.question, choices=choices, **_given(arguments, AnswerOptions)
    )
    lines = [f"{answer.text}  {answer.probability:.2f}" for answer in answers.answers]
    print_answer(
        arguments.json, predictor.info, scene, answers.to_dict(), [*lines, *cut_note(answers)]
    )


def _ground(arguments: argparse.Namespace) -> None:
    from x2vlm.visualize import draw_groundings

    phrases, out = _lines(arguments.phrases), check_out(arguments.out, ".png")
    predictor, scene = _open(arguments)
    thresholds = tuple(arguments.thresholds) if arguments.thresholds else None
    groundings = predictor.ground(scene, phrases, frame=arguments.frame, thresholds=thresholds)
    if out:
        frame = groundings[0].frame
        image = draw_groundings(scene.image if frame is None else scene.frames[frame], groundings)
        save_whole(out, lambda path: image.save(path, "PNG"))
    results = [
        {key: value for key, value in g.to_dict().items() if key != "explanation"}
        for g in groundings
    ]
    lines = [line for g in groundings for line in (grounding_line(g), *cut_note(g))]
    print_answer(
        arguments.json,
        predictor.info,
        scene,
        {"box": "x1 y1 x2 y2 in pixels", "groundings": results},
        lines,
    )


def _explain(arguments: argparse.Namespace) -> None:
    out = check_out(arguments.out, ".png", ".npz")
    predictor, scene = _open(arguments)
    options = _given(arguments, ExplainOptions)
    for name in {"layer", "head"} & set(options):
        options[name] = int(options[name]) if options[name].isdigit() else options[name]
    explanation = predictor.explain(scene, arguments.text, **options)
    result = explanation.to_dict()
    total = float(explanation.maps.sum()) or 1.0
    shares = [float(heat.sum()) / total for heat in explanation.maps]
    lines = [
        f"{word.text}  {share:.0%}" for word, share in zip(explanation.words, shares, strict=True)
    ]
    lines.append(f"score {explanation.score:.3f}")
    if arguments.check:
        check = predictor.deletion_check(scene, explanation, progress=print_progress)
        result["deletion_check"] = check.to_dict()
        lines.append(
            f"faithfulness {check.faithfulness:+.3f} (above 0: the map finds what matters): "
            f"{check.verdict}"
        )
    if out:
        save_whole(
            out,
            lambda path: write_maps(path, out.suffix.lower(), explanation, scene, predictor.info),
        )
    print_answer(arguments.json, predictor.info, scene, result, [*lines, *cut_note(explanation)])


def _match(arguments: argparse.Namespace) -> None:
    texts = _lines(arguments.texts)
    predictor, scene = _open(arguments)
    matches = predictor.match(scene, texts)
    lines = []
    for match in matches:
        numbers = [("match", match.probability), ("cosine", match.similarity)]
        shown = ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None)
        lines += [f"{match.text}: {shown}", *cut_note(match)]
    print_answer(
        arguments.json,
        predictor.info,
        scene,
        {"matches": [match.to_dict() for match in matches]},
        lines,
    )


def _convert(arguments: argparse.Namespace) -> None:
    import torch

    from x2vlm.checkpoint import convert

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


def _doctor(arguments: argparse.Namespace) -> None:
    folder = arguments.verify
    findings = doctor.verified(folder) if folder else doctor.examine()
    if arguments.json:
        print_json(findings)
    else:
        print(doctor.told(findings))


def _demo(arguments: argparse.Namespace) -> None:
    app = Path(__file__).resolve().parent.parent / "app.py"
    if not app.is_file():
        raise ParameterError(
            "The installed package holds the model alone, without the app. Clone the repository "
            "and run `make demo` there.",
            "param/range",
        )
    sys.argv = [str(app), *arguments.rest]
    sys.path.insert(0, str(app.parent))
    runpy.run_path(str(app), run_name="__main__")


def _lines(items: list[str]) -> list[str]:
    """The arguments themselves, or for `-` the lines of standard input."""
    if items != ["-"]:
        return items
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise ParameterError("Standard input holds no lines. Write one text a line.", "param/range")
    return lines
