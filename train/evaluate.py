"""Measures a trained model on the `test` data of its run and writes the numbers down.

    python -m train.evaluate --config train/configs/mini.yaml
    python -m train.evaluate --config train/configs/mini.yaml --checkpoint assets/mini --limit 50
    python -m train.evaluate --config train/configs/mini.yaml --predictions runs/mini/said.jsonl
    python -m train.evaluate --config train/configs/vqa_base.yaml --evalai runs/vqa/evalai
    python -m train.evaluate --config train/configs/captioning_coco_base.yaml --coco
    accelerate launch --num_processes 8 -m train.evaluate --config ... --precision bf16

Several processes share the records of every test set and give the numbers of one.

Without `--checkpoint` it measures the weights that validation chose: `best` of the run's folder, or
`final` where there is no `best`, since the last step was the best one or nothing was to be chosen.

The result is one JSON file: for every task and test set its metrics and the number of samples, with
the command, the seeds or files, the hash of the weights and the machine, so that a reader can
repeat it. A task whose test sets are languages also gets their means.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import PartialState

from train.config import load_run
from train.data.records import DataConfig
from train.metrics.coco import coco_scores, require_coco
from train.tasks.records import RecordTask
from x2vlm.errors import ConfigError, X2VLMError
from x2vlm.modeling.build import load_model
from x2vlm.processing import Processor

ABOUT = ("samples", "seconds", "data", "notes", "unreadable")
"""What stands beside the metrics of a test set."""


def evaluate(
    tasks: dict[str, RecordTask],
    model,
    processor: Processor,
    limit: int | None = None,
    only: Sequence[str] = (),
    workers: int = 0,
    predictions: TextIO | None = None,
    evalai: Path | None = None,
    coco: bool = False,
    share: tuple[int, int] = (0, 1),
) -> dict[str, dict[str, Any]]:
    """`{"task/test set": {metric: value, samples, seconds, data}}` for every test set of every
    task, in the order of the run; with `notes` and `unreadable` where there are any.

    Args:
        model: in eval mode, on its device.
        limit: samples of a test set at most.
        only: tasks to measure; empty for all.
        workers: processes that read the samples.
        predictions: file for a JSON line a sample: what the model said of it and what was right.
        evalai: folder for the answers as the VQA server wants them, a file a test set.
        coco: captions are also scored by pycocoevalcap, see `train.metrics.coco`.
        share: (number of this process, number of processes); the first one gets all results and
            writes them.
    """
    results: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        if only and name not in only:
            continue
        task.prepare_texts(processor)
        for test, data in task.test.items():
            started = time.monotonic()
            records = task.open_test(data, limit, workers)
            if len(records) < share[1]:
                raise ConfigError(
                    f"{name}/{test} has {len(records)} samples, less than one for each of "
                    f"{share[1]} processes. Take fewer processes.",
                    "config/value",
                )
            records.share = share
            with torch.no_grad():
                metrics = task.measure(model, records)
            records.join()
            if share[0]:
                continue
            if coco and "caption" in records.predictions[0]:
                metrics |= coco_scores(records.predictions)
            if evalai:
                write_answers(evalai / f"{name}-{test}.json", records.predictions)
            seconds, count = round(time.monotonic() - started, 1), records.measured
            results[f"{name}/{test}"] = {
                **{key: round(value, 5) for key, value in metrics.items()},
                "samples": count,
                "seconds": seconds,
                "data": describe(data, len(records)),
                **({"notes": records.notes} if records.notes else {}),
                **({"unreadable": records.unreadable} if records.unreadable else {}),
            }
            shown = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items())
            print(f"{name}/{test}: {shown}  ({count} samples, {seconds} s)", flush=True)
            for said in records.predictions if predictions else ():
                line = {"test": f"{name}/{test}", **said}
                predictions.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not share[0]:
            results |= means(name, {test: results[f"{name}/{test}"] for test in task.test})
    return results


def means(name: str, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of a task whose test sets are languages (`de`, `zh`) the means of its metrics over them, and
    over those but `en`; nothing for other test sets, whose means say nothing."""
    if not all(len(test) == 2 for test in found):
        return {}
    groups = {"mean": list(found), "mean without en": [test for test in found if test != "en"]}
    if "en" not in found:
        del groups["mean without en"]
    return {
        f"{name}/{group}": {
            key: round(sum(found[test][key] for test in tests) / len(tests), 5)
            for key in found[tests[0]]
            if key not in ABOUT and all(key in found[test] for test in tests)
        }
        for group, tests in groups.items()
        if len(tests) > 1
    }


def write_answers(path: Path, predictions: list[dict[str, Any]]) -> None:
    """`[{"question_id", "answer"}]`, the form of the VQA v2 server on EvalAI; nothing when the
    questions have no numbers."""
    answers = [
        {"question_id": said["question_id"], "answer": said["answer"]}
        for record in predictions
        for said in record.get("answers", ())
        if "question_id" in said
    ]
    if answers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answers), encoding="utf-8")
        print(f"{path}: {len(answers)} answers", flush=True)


def describe(data: DataConfig, count: int) -> str:
    """Which samples: seeds of the sticker world, photos, or files."""
    if data.photos is not None:
        photos = data.photos
        names = ", ".join(Path(file).name for file in photos.files)
        if photos.kind in ("mosaics", "tiles"):
            last = photos.first + count - 1
            return f"{photos.kind} {photos.first} to {last} of {names}"
        return f"{photos.kind}, first {count} of {names}"
    if data.stickers is None:
        return f"first {count} of {', '.join(Path(file).name for file in data.files)}"
    from x2vlm.stickers import WORLD_VERSION, split_seeds

    start = split_seeds(data.stickers.split).start + data.stickers.first
    return (
        f"sticker world {WORLD_VERSION}, {data.stickers.kind}, {data.stickers.split}, seeds "
        f"{start} to {start + count - 1}"
    )


def chosen_weights(folder: Path) -> Path:
    """The weights of a finished run that validation chose, see above."""
    best = folder / "best"
    return best if best.is_dir() else folder / "final"


@contextlib.contextmanager
def _predictions_file(path: str | None, rank: int) -> Iterator[TextIO | None]:
    if path is None or rank:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "w", encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"--predictions: {path} cannot be written ({error.strerror}).", "config/value"
            ) from None
        yield file


def _share(options: argparse.Namespace) -> tuple[int, int]:
    """Number of this process and number of all that `accelerate launch` or `torchrun` started; the
    device becomes this one's."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    processes = PartialState(cpu=options.device == "cpu")
    options.device = str(processes.device)
    return processes.process_index, processes.num_processes


def _only(names: str, tasks: dict[str, RecordTask]) -> list[str]:
    only = [name for name in names.split(",") if name]
    unknown = sorted(set(only) - set(tasks))
    if unknown:
        raise ConfigError(
            f"--only: {unknown[0]!r} is no task of this run. Its tasks: {', '.join(tasks)}.",
            "config/value",
        )
    return only


def _about(options: argparse.Namespace, processes: int) -> dict[str, Any]:
    """The machine and the day."""
    on_gpu = options.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "cpu",
        "processes": processes,
        "precision": options.precision,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        help="YAML of the run; a second one lies over the first",
    )
    parser.add_argument("--checkpoint", help="model folder; default: the run's best weights")
    parser.add_argument("--limit", type=int, help="samples of each test set at most")
    parser.add_argument("--only", default="", help="tasks to measure, separated by commas")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out",
        help="file for the numbers; default: results.json in the model's folder, if all is "
        "measured",
    )
    parser.add_argument("--predictions", help="file for a JSON line a sample: what the model said")
    parser.add_argument("--evalai", type=Path, help="folder for answers as the VQA server reads")
    parser.add_argument(
        "--coco", action="store_true", help="METEOR, SPICE and the rest by pycocoevalcap (Java)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options, overrides = _options().parse_known_args(arguments)
    rank, world = share = _share(options)
    try:
        layers = [word for path in options.config for word in ("--config", path)]
        run, tasks = load_run([*layers, *overrides])
        only = _only(options.only, tasks)
        if options.coco:
            require_coco()
        for name in only or tasks:
            tasks[name].open_data(tasks[name].test.values())
        folder = Path(options.checkpoint or chosen_weights(Path(run.output_dir)))
        print(f"Measuring {folder}", flush=True)
        loaded = load_model(folder, device=options.device)
        processor = Processor.from_pretrained(
            loaded.tokenizer_dir or run.model.tokenizer, loaded.config
        )
        quiet = contextlib.redirect_stdout(io.StringIO()) if rank else contextlib.nullcontext()
        half = torch.autocast(
            options.device.partition(":")[0], torch.bfloat16, options.precision == "bf16"
        )
        with _predictions_file(options.predictions, rank) as said, quiet, half:
            results = evaluate(
                tasks,
                loaded.model,
                processor,
                options.limit,
                only,
                run.num_workers,
                said,
                options.evalai,
                options.coco,
                share,
            )
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    if rank:
        return 0
    if (options.limit or only) and not options.out:
        print("A part is measured, so results.json stays as it is; --out FILE writes the numbers.")
        return 0
    given = sys.argv[1:] if arguments is None else arguments
    report = {
        "command": f"python -m train.evaluate {' '.join(given)}",
        "checkpoint": str(folder),
        "weights_sha256": loaded.sha256,
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        **_about(options, world),
        "results": results,
    }
    out = Path(options.out or folder / "results.json")
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
