"""The whole pipeline at toy scale, and what `python -m train.evaluate` writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train import evaluate
from train.data.files import FileRecords
from train.data.records import DataConfig
from train.data.shards import write_shards
from train.data.stickers import StickerData, StickerRecords
from train.evaluate import describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke")
    command = [
        sys.executable,
        "-m",
        "train.smoke",
        "--steps",
        "2",
        "--samples",
        "2",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (out / "said.txt").write_text(done.stdout)
    return out


def test_pipeline_leaves_a_checkpoint_with_every_head(folder):
    from x2vlm.modeling.build import load_model

    loaded = load_model(folder / "joint" / "final")
    assert {"contrastive", "matching", "box", "masked_lm", "answer_decoder", "pair"} <= set(
        loaded.config.heads
    )
    assert loaded.tokenizer_dir is not None


def test_the_joint_run_makes_the_heads_that_pretraining_has_not(folder):
    """So that its answer decoder starts from the fusion layers."""
    assert (
        "heads without weights (fresh): answer_decoder, pair" in (folder / "said.txt").read_text()
    )


def test_results_say_what_was_measured_and_on_what(folder):
    report = json.loads((folder / "results.json").read_text())
    assert len(report["weights_sha256"]) == 64 and report["parameters"] > 100_000
    assert report["command"].startswith("python -m train.evaluate --config")
    measured = report["results"]
    metrics = {name for numbers in measured.values() for name in numbers}
    assert {"accuracy", "pointing", "true", "auc", "group", "text_r@1", "image_r@1"} <= metrics
    for numbers in measured.values():
        assert numbers["samples"] == 2
        assert (
            "seeds 2000050000 to 2000050001" in numbers["data"]
            or "unseen, seeds 3000050000" in numbers["data"]
        )


def test_a_part_does_not_replace_the_published_numbers(folder, capsys):
    arguments = [
        "--config",
        str(folder / "joint.yaml"),
        "--only",
        "pairs",
        "--limit",
        "2",
        "--device",
        "cpu",
    ]
    assert evaluate.main(arguments) == 0
    assert "results.json stays as it is" in capsys.readouterr().out
    assert not (folder / "joint" / "final" / "results.json").exists()


def test_unknown_task_is_refused(folder, capsys):
    arguments = ["--config", str(folder / "joint.yaml"), "--only", "captoins", "--device", "cpu"]
    assert evaluate.main(arguments) == 2
    assert "'captoins' is no task of this run" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["scene", "video", "order", "pair"])
def test_shards_hold_what_was_drawn(kind, tmp_path):
    data = StickerData(kind=kind, count=3)
    paths = write_shards(data, 48, tmp_path, per_shard=2)
    assert [path.name for path in paths] == [f"{kind}-00000.tar", f"{kind}-00001.tar"]
    drawn, read = StickerRecords(data, 48), FileRecords([str(tmp_path / "*.tar")], format="record")
    assert len(read) == 3
    for index in range(3):
        first, second = drawn[index], read[index]
        for key in set(first) - {"image", "frames", "images", "scene", "scenes", "video"}:
            assert first[key] == second[key]
        for key in {"image", "frames", "images"} & set(first):
            images = (
                zip([first[key]], [second[key]], strict=True)
                if key == "image"
                else zip(first[key], second[key], strict=True)
            )
            assert all(a.tobytes() == b.tobytes() for a, b in images)


def test_description_of_files():
    assert describe(DataConfig(files=["somewhere/val.jsonl"]), 7) == "first 7 of val.jsonl"


@pytest.mark.slow
def test_two_processes_measure_what_one_does(folder, tmp_path):
    """Every task of the joint run, on samples that do not divide evenly."""
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        command = ["torch.distributed.run", "--nproc_per_node", "2"] if processes == 2 else []
        command = [*command, "-m", "train.evaluate"] if command else ["train.evaluate"]
        options = [
            *("--config", str(folder / "joint.yaml"), "--device", "cpu", "--limit", "5"),
            *("--out", f"{out}.json", "--predictions", f"{out}.jsonl"),
        ]
        done = subprocess.run(
            [sys.executable, "-m", *command, *options],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        report = json.loads((tmp_path / f"{processes}.json").read_text())
        assert report["processes"] == processes
        lines = (tmp_path / f"{processes}.jsonl").read_text().splitlines()
        found.append((report["results"], [json.loads(line) for line in lines]))
    (one, said), (two, joined) = found
    assert one.keys() == two.keys()
    for name, numbers in one.items():
        del numbers["seconds"], two[name]["seconds"]
        assert numbers == pytest.approx(two[name], abs=1e-4), name
    assert [line["sample"] for line in said] == [line["sample"] for line in joined]


def test_every_task_joins_what_its_processes_found():
    files = sorted(Path(evaluate.__file__).parent.glob("tasks/*.py"))
    reading = [path for path in files if "records.batches(" in path.read_text("utf-8")]
    assert len(reading) >= 7
    assert [path.name for path in reading if "records.gather" not in path.read_text("utf-8")] == []
