"""The ablation study at toy size: every variant is a change of the full run, and one command makes
the table."""

import json

import numpy as np
import pytest

from train import ablations
from train.config import load_run

TINY = (
    "--model.overrides.vision.image_size=32",
    "--model.overrides.vision.hidden_size=16",
    "--model.overrides.text.hidden_size=16",
    "--model.overrides.text.num_layers=1",
    "--device=cpu",
    "--num_workers=0",
    "--log.trackers=[]",
    *(f"--tasks.{name}.batch_size=2" for name in ("regions", "images", "videos")),
    *(
        f"--tasks.{task}.test.{test}.stickers.count=3"
        for task, test in (
            ("retrieval", "images"),
            ("video_retrieval", "videos"),
            ("grounding", "phrases"),
        )
    ),
)


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_a_variant_changes_the_full_run(name):
    full = ["--config", str(ablations.CONFIGS / "full.yaml")]
    plain, plain_tasks = load_run(full)
    run, tasks = load_run([*full, "--config", str(ablations.CONFIGS / f"{name}.yaml")])
    assert run.output_dir.endswith(name)
    assert {n for n, task in tasks.items() if task.test} == {
        "retrieval",
        "video_retrieval",
        "grounding",
    }
    if name != ablations.FULL:
        assert tasks != plain_tasks or run.model != plain.model
        assert run.optimizer == plain.optimizer and run.max_steps == plain.max_steps


def test_one_command_makes_the_table_and_goes_on(tmp_path, capsys):
    command = ["--steps", "1", "--seeds", "0", "--only", "no_box_loss", "--out", str(tmp_path)]
    assert ablations.main([*command, *TINY]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert rows[0].split("|")[2:-1] == [
        " retrieval/images ",
        " video_retrieval/videos ",
        " grounding/phrases ",
    ]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["full", "no_box_loss"]
    assert "<br>" not in rows[2] and rows[3].count("<br>") == 3
    before = (tmp_path / "full-0/predictions.jsonl").stat().st_mtime_ns
    assert ablations.main([*command, *TINY]) == 0
    assert (tmp_path / "full-0/predictions.jsonl").stat().st_mtime_ns == before
    assert rows[3] in capsys.readouterr().out


def test_the_table_compares_samples_of_the_same_name(tmp_path):
    files = []
    for number, shift in enumerate((0.0, 0.25)):
        path = tmp_path / f"{number}.jsonl"
        lines = [
            {"test": "a/b", "sample": f"scene {n}", "score": n / 4 * 0.5 + shift}
            for n in np.random.default_rng(number).permutation(4).tolist()
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        files.append(path)
    variants = {name: ablations.scores_of([path]) for name, path in zip("xy", files, strict=True)}
    last = ablations.table(variants).splitlines()[-1]
    # every sample gains as much, so there is nothing to resample
    assert last == "| y | 0.438 (0.438 to 0.438)<br>+0.250 [+0.250, +0.250] |"
