"""caption, ask, ground, explain and match: about one image or video, whose answer is printed, or
about many, whose answers go to a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from x2vlm.cli.arguments import add_model, add_options, given, lines_of, load_predictor
from x2vlm.cli.collections import add_collection, is_many, run_collection
from x2vlm.cli.output import (
    check_out,
    cut_note,
    grounding_line,
    print_answer,
    print_progress,
    save_whole,
    say,
    unsure_note,
    write_maps,
)
from x2vlm.options import AnswerOptions, CaptionOptions, ExplainOptions


def add_inference(verbs: Any) -> None:
    """The five commands."""
    caption = _verb(verbs, "caption", _caption, "describe images or videos")
    add_options(caption, CaptionOptions)
    caption.add_argument("--out", metavar="JSONL", help="records of many images")

    ask = _verb(verbs, "ask", _ask, "answer a question", "INPUT... QUESTION")
    ask.add_argument(
        "--choices",
        nargs="+",
        metavar="ANSWER",
        help="rank these answers; - reads them from standard input",
    )
    add_options(ask, AnswerOptions)
    ask.add_argument("--out", metavar="JSONL", help="records of many images")

    ground = _verb(
        verbs,
        "ground",
        _ground,
        "find the box of each phrase, and say what is not there",
        "INPUT PHRASE...",
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
    ground.add_argument(
        "--out", metavar="PNG|JSONL", help="draw the boxes, or records of many images"
    )

    explain = _verb(
        verbs, "explain", _explain, "show which patches each word rests on", "INPUT... TEXT"
    )
    add_options(explain, ExplainOptions)
    explain.add_argument(
        "--check",
        action="store_true",
        help="blur the hottest patches and watch the match fall (slow)",
    )
    explain.add_argument(
        "--out",
        metavar="PNG|NPZ|JSONL",
        help="save the maps as a picture or as numbers, or records of many images",
    )

    match = _verb(verbs, "match", _match, "score texts against an image or video", "INPUT TEXT...")
    match.add_argument("--out", metavar="JSONL", help="records of many images")


def _verb(
    verbs: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help_text: str,
    inputs: str = "INPUT...",
) -> argparse.ArgumentParser:
    texts = inputs != "INPUT..."
    parser = verbs.add_parser(
        name, help=help_text, description=help_text, usage=f"x2vlm {name} {inputs} [options]"
    )
    parser.set_defaults(run=run, fail=parser.error)
    told = "images or videos; a phrase or text may be - for lines of standard input"
    parser.add_argument("inputs", nargs="+", metavar=inputs, help=told)
    add_model(parser)
    parser.add_argument("--frames", type=int, help="frames of a video to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_collection(parser, texts)
    return parser


def _asked(arguments: argparse.Namespace, last: bool) -> tuple[list[str], list[str]]:
    """Inputs and texts: with --text or --text-column all arguments are inputs; else the last one is
    the text (`last`), or all but the first are."""
    given = arguments.inputs
    if arguments.text or arguments.text_column:
        if arguments.text and arguments.text_column:
            arguments.fail("give --text or --text-column, not both")
        return given, arguments.text or []
    if len(given) < 2:
        arguments.fail("give an input and a text")
    inputs, texts = (given[:-1], given[-1:]) if last else (given[:1], given[1:])
    if texts == ["-"] and "-" in inputs:
        arguments.fail("standard input can hold the inputs or the texts, not both")
    return inputs, texts if last else lines_of(texts)


def _open(arguments: argparse.Namespace, medium: str) -> tuple[Any, Any]:
    """The Predictor and the encoded scene."""
    predictor = load_predictor(arguments)
    scene = predictor.encode(medium, num_frames=arguments.frames)
    for note in scene.notes:
        say(f"note: {note}")
    return predictor, scene


def _caption(arguments: argparse.Namespace) -> int | None:
    options = given(arguments, CaptionOptions)
    if is_many(arguments, arguments.inputs):
        return run_collection(arguments, arguments.inputs, "caption", (), options)
    predictor, scene = _open(arguments, arguments.inputs[0])
    captions = predictor.caption(scene, progress=print_progress, **options)
    lines = [c.text if c.match is None else f"{c.text}  (match {c.match:.2f})" for c in captions]
    print_answer(
        arguments.json,
        predictor.info,
        scene,
        {"captions": [caption.to_dict() for caption in captions]},
        lines,
    )


def _ask(arguments: argparse.Namespace) -> int | None:
    inputs, texts = _asked(arguments, last=True)
    options = given(arguments, AnswerOptions)
    if arguments.choices:
        options["choices"] = lines_of(arguments.choices)
    if is_many(arguments, inputs):
        return run_collection(arguments, inputs, "answer", texts, options)
    predictor, scene = _open(arguments, inputs[0])
    answers = predictor.answer(scene, " ".join(texts), **options)
    lines = [f"{answer.text}  {answer.probability:.2f}" for answer in answers.answers]
    if answers.unsure:
        lines = [unsure_note(predictor.info), *(f"  perhaps {line}" for line in lines)]
    print_answer(
        arguments.json, predictor.info, scene, answers.to_dict(), [*lines, *cut_note(answers)]
    )


def _ground(arguments: argparse.Namespace) -> int | None:
    from x2vlm.visualize import draw_groundings

    inputs, phrases = _asked(arguments, last=False)
    options = {"frame": arguments.frame}
    if arguments.thresholds:
        options["thresholds"] = tuple(arguments.thresholds)
    if is_many(arguments, inputs):
        return run_collection(arguments, inputs, "ground", phrases, options)
    out = check_out(arguments.out, ".png")
    predictor, scene = _open(arguments, inputs[0])
    groundings = predictor.ground(scene, phrases, **options)
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


def _explain(arguments: argparse.Namespace) -> int | None:
    inputs, texts = _asked(arguments, last=True)
    options = given(arguments, ExplainOptions)
    for name in {"layer", "head"} & set(options):
        options[name] = int(options[name]) if options[name].isdigit() else options[name]
    if is_many(arguments, inputs):
        return run_collection(arguments, inputs, "explain", texts, options)
    out = check_out(arguments.out, ".png", ".npz")
    predictor, scene = _open(arguments, inputs[0])
    explanation = predictor.explain(scene, " ".join(texts), **options)
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


def _match(arguments: argparse.Namespace) -> int | None:
    inputs, texts = _asked(arguments, last=False)
    if is_many(arguments, inputs):
        return run_collection(arguments, inputs, "match", texts)
    predictor, scene = _open(arguments, inputs[0])
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
