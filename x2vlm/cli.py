"""The command `x2vlm`: caption, ask, ground, explain, match, convert, doctor, demo.

Exit codes: 0 done, 1 the input was refused, 2 wrong usage, 3 the model or checkpoint cannot be
used, 130 interrupted. Answers go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from x2vlm import doctor
from x2vlm.errors import Cancelled, CheckpointError, ConfigError, ParameterError, X2VLMError

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
        _say("interrupted")
        return INTERRUPTED
    except X2VLMError as error:
        _say(str(error))
        if getattr(arguments, "json", False):
            _print_json({"error": {"message": error.message, "code": error.code}})
        return MODEL if isinstance(error, (CheckpointError, ConfigError)) else REFUSED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="x2vlm", description="Describe, ask, find and see why, in pictures and videos."
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    caption = _inference(verbs, "caption", _caption, "describe a picture or clip")
    caption.add_argument("--beams", type=int, default=3, help="beams of the search (default 3)")
    caption.add_argument(
        "--candidates", type=int, default=1, help="captions to write, best first (default 1)"
    )
    caption.add_argument(
        "--max-new-tokens", type=int, default=30, help="longest caption in tokens (default 30)"
    )
    caption.add_argument(
        "--sample",
        action="store_true",
        help="draw words instead of searching the most probable ones",
    )
    caption.add_argument("--seed", type=int, default=0, help="of the drawing (default 0)")
    caption.add_argument("--prefix", help="words that the caption begins with")

    ask = _inference(verbs, "ask", _ask, "answer a question")
    ask.add_argument("question")
    ask.add_argument(
        "--choices",
        nargs="+",
        metavar="ANSWER",
        help="rank these answers; - reads them from standard input",
    )
    ask.add_argument("--top-k", type=int, default=5, help="answers to show (default 5)")
    ask.add_argument(
        "--mode", choices=("rank", "generate"), help="choose from the list, or write freely"
    )

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
    explain.add_argument(
        "--target",
        choices=("match", "caption", "answer", "box"),
        default="match",
        help="what to explain",
    )
    explain.add_argument("--answer", help="the answer to explain (default: the best one)")
    explain.add_argument("--layer", help="fusion layer from 0, or mean")
    methods = ("gradient", "attention", "rollout", "image-gradcam", "random")
    explain.add_argument("--method", choices=methods, default="gradient", help="default: gradient")
    explain.add_argument(
        "--check",
        action="store_true",
        help="grey the hottest patches and watch the match fall (slow)",
    )
    explain.add_argument(
        "--out", metavar="PNG|NPZ", help="save the maps as a picture or as numbers"
    )

    match = _inference(verbs, "match", _match, "score texts against a picture or clip")
    match.add_argument(
        "texts", nargs="+", metavar="TEXT", help="- reads one a line from standard input"
    )

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
    convert.add_argument("--json", action="store_true", help="the report as JSON")

    health = verbs.add_parser("doctor", help="what is installed, cached and ready")
    health.set_defaults(run=_doctor)
    health.add_argument("--json", action="store_true")

    demo = verbs.add_parser("demo", help="open the app; further arguments go to it", add_help=False)
    demo.set_defaults(run=_demo)
    return parser


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
    parser.add_argument("--frames", type=int, help="frames of a video to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _open(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The Predictor and the encoded scene."""
    from x2vlm.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(
        _models(arguments.model), arguments.device, arguments.dtype, _download_progress
    )
    scene = predictor.encode(arguments.media, num_frames=arguments.frames)
    for note in scene.notes:
        _say(f"note: {note}")
    return predictor, scene


def _models(named: list[str] | None) -> str | dict[str, str]:
    """`--model NAME`, or `--model TASK=NAME` several times."""
    from x2vlm.inference.models import TASKS

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
        scene,
        num_beams=arguments.beams,
        num_captions=arguments.candidates,
        max_new_tokens=arguments.max_new_tokens,
        do_sample=arguments.sample,
        seed=arguments.seed,
        prefix=arguments.prefix,
        progress=_progress,
    )
    lines = [c.text if c.match is None else f"{c.text}  (match {c.match:.2f})" for c in captions]
    _answer(
        arguments,
        predictor,
        scene,
        {"captions": [caption.to_dict() for caption in captions]},
        lines,
    )


def _ask(arguments: argparse.Namespace) -> None:
    choices = _lines(arguments.choices) if arguments.choices else None
    predictor, scene = _open(arguments)
    answers = predictor.answer(
        scene, arguments.question, choices=choices, top_k=arguments.top_k, mode=arguments.mode
    )
    lines = [f"{answer.text}  {answer.probability:.2f}" for answer in answers.answers]
    _answer(arguments, predictor, scene, answers.to_dict(), [*lines, *_cut(answers)])


def _ground(arguments: argparse.Namespace) -> None:
    from x2vlm.visualize import draw_groundings

    phrases, out = _lines(arguments.phrases), _target(arguments.out, ".png")
    predictor, scene = _open(arguments)
    thresholds = tuple(arguments.thresholds) if arguments.thresholds else None
    groundings = predictor.ground(scene, phrases, frame=arguments.frame, thresholds=thresholds)
    if out:
        frame = groundings[0].frame
        image = draw_groundings(scene.image if frame is None else scene.frames[frame], groundings)
        _save(out, lambda path: image.save(path, "PNG"))
    results = [
        {key: value for key, value in g.to_dict().items() if key != "explanation"}
        for g in groundings
    ]
    lines = [line for g in groundings for line in (_told(g), *_cut(g))]
    _answer(
        arguments, predictor, scene, {"box": "x1 y1 x2 y2 in pixels", "groundings": results}, lines
    )


def _told(grounding: Any) -> str:
    """One line of text for one box."""
    box = " ".join(f"{edge:.0f}" for edge in grounding.box_xyxy)
    words = {
        "found": "found",
        "unsure": "unsure",
        "absent": "probably not here",
        None: "no match score",
    }[grounding.verdict]
    score = "" if grounding.match is None else f" {grounding.match:.2f}"
    hit = {True: "inside", False: "outside", None: "none"}[grounding.agreement.pointing_hit]
    heat = f"heat inside {grounding.agreement.energy_inside:.0%}, peak {hit}"
    return f"{grounding.phrase}: {words}{score}; box {box}; {heat}"


def _explain(arguments: argparse.Namespace) -> None:
    out = _target(arguments.out, ".png", ".npz")
    predictor, scene = _open(arguments)
    layer = int(arguments.layer) if (arguments.layer or "").isdigit() else arguments.layer
    explanation = predictor.explain(
        scene,
        arguments.text,
        target=arguments.target,
        answer=arguments.answer,
        layer=layer,
        method=arguments.method,
    )
    result = explanation.to_dict()
    total = float(explanation.maps.sum()) or 1.0
    shares = [float(heat.sum()) / total for heat in explanation.maps]
    lines = [
        f"{word.text}  {share:.0%}" for word, share in zip(explanation.words, shares, strict=True)
    ]
    lines.append(f"score {explanation.score:.3f}")
    if arguments.check:
        check = predictor.deletion_check(scene, explanation, progress=_progress)
        result["deletion_check"] = check.to_dict()
        lines.append(
            f"faithfulness {check.faithfulness:+.3f} (above 0: the map finds what matters)"
        )
    if out:
        _save(
            out,
            lambda path: _write_maps(path, out.suffix.lower(), explanation, scene, predictor.info),
        )
    _answer(arguments, predictor, scene, result, [*lines, *_cut(explanation)])


def _write_maps(path: Path, suffix: str, explanation: Any, scene: Any, info: Any) -> None:
    """All words on one sheet with one scale, or the maps as they are."""
    import numpy as np

    from x2vlm.visualize import contact_sheet, heat_range, overlay_heatmap

    if suffix == ".npz":
        words = np.array([word.text for word in explanation.words])
        facts = {
            "text": explanation.text,
            "target": explanation.target,
            "method": explanation.method,
            "model": info.hash,
        }
        with path.open("wb") as file:
            np.savez(file, maps=explanation.maps, words=words, score=explanation.score, **facts)
        return
    scale = heat_range(explanation.maps)
    sheet = contact_sheet(
        [
            overlay_heatmap(scene.image, heat, value_range=scale)
            for heat in (explanation.overall, *explanation.maps)
        ],
        ["all words", *(word.text for word in explanation.words)],
    )
    sheet.save(path, "PNG")


def _match(arguments: argparse.Namespace) -> None:
    texts = _lines(arguments.texts)
    predictor, scene = _open(arguments)
    matches = predictor.match(scene, texts)
    lines = []
    for match in matches:
        numbers = [("match", match.probability), ("cosine", match.similarity)]
        shown = ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None)
        lines += [f"{match.text}: {shown}", *_cut(match)]
    _answer(arguments, predictor, scene, {"matches": [match.to_dict() for match in matches]}, lines)


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
    )
    for note in report.notes:
        _say(f"note: {note}")
    if arguments.json:
        _print_json(report.to_dict())
    else:
        print(str(report) if arguments.report else str(report).splitlines()[0])


def _doctor(arguments: argparse.Namespace) -> None:
    findings = doctor.examine()
    if arguments.json:
        _print_json(findings)
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


def _answer(
    arguments: argparse.Namespace,
    predictor: Any,
    scene: Any,
    result: dict[str, Any],
    lines: list[str],
) -> None:
    """Print the result for people, or with its circumstances for programs."""
    if not arguments.json:
        for line in lines:
            print("".join(character if character.isprintable() else "�" for character in line))
        return
    media = {"kind": scene.kind, "size": list(scene.size), "notes": list(scene.notes)}
    if scene.kind == "video":
        media |= {
            "frames": list(scene.indices),
            "times": list(scene.times),
            "duration": scene.duration,
        }
    model = {
        "name": predictor.info.name,
        "hash": predictor.info.hash,
        "dtype": predictor.info.dtype,
    }
    _print_json({"model": model, "media": media, **result})


def _cut(result: Any) -> list[str]:
    """Says that a text was cut, where it was."""
    return (
        []
        if result.truncated_at is None
        else [f"  (cut after {result.truncated_at} characters: too long for the model)"]
    )


def _lines(items: list[str]) -> list[str]:
    """The arguments themselves, or for `-` the lines of standard input."""
    if items != ["-"]:
        return items
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise ParameterError("Standard input holds no lines. Write one text a line.", "param/range")
    return lines


def _target(out: str | None, *suffixes: str) -> Path | None:
    """Where to save, checked before any work is done."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix.lower() not in suffixes:
        raise ParameterError(f"--out must end in {' or '.join(suffixes)}.", "param/range")
    if not path.absolute().parent.is_dir():
        raise ParameterError("The folder for --out does not exist. Make it first.", "param/range")
    return path


def _save(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target first, so that a failure leaves nothing half-written under its
    name."""
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            draft = Path(folder) / path.name
            write(draft)
            os.replace(draft, path)
    except OSError:
        raise ParameterError(
            f"{path.name} cannot be written. Check permissions and room.", "param/range"
        ) from None
    _say(f"saved {path.name}")


def _progress(fraction: float, message: str) -> None:
    if sys.stderr.isatty():
        end = "\r" if fraction < 1 else "\n"
        print(f"{message}: {fraction:.0%}   ", end=end, file=sys.stderr, flush=True)


def _download_progress(done: int, total: int) -> None:
    _progress(done / max(total, 1), f"Downloading {total / 2**20:.0f} MiB")


def _say(message: str) -> None:
    print(f"x2vlm: {message}", file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
