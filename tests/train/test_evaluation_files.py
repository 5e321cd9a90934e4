"""What evaluation leaves beside its numbers: means over languages, answers for a server, scores
that two models are compared by, the field's caption scores."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

from train import compare
from train.config import build_task
from train.data.records import TestRecords
from train.data.stickers import StickerData, StickerRecords
from train.evaluate import means, write_answers
from train.metrics.coco import coco_scores, require_coco
from x2vlm.errors import ConfigError
from x2vlm.metrics import median_rank
from x2vlm.modeling.build import build_model


def test_means_over_languages():
    found = {
        language: {"accuracy": value, "samples": 9, "notes": ["n"]}
        for language, value in {"en": 0.9, "de": 0.5, "zh": 0.3}.items()
    }
    assert means("it", {"en": found["en"]}) == {}
    assert means("it", {"testA": found["en"], "testB": found["de"]}) == {}
    assert means("it", found) == {
        "it/mean": {"accuracy": 0.56667},
        "it/mean without en": {"accuracy": 0.4},
    }


def test_answers_for_the_server(tmp_path):
    said = [{"answers": [{"question_id": 7, "question": "q", "answer": "dog", "score": 1.0}]}]
    write_answers(tmp_path / "new" / "vqa.json", said)
    assert json.loads((tmp_path / "new" / "vqa.json").read_text()) == [
        {"question_id": 7, "answer": "dog"}
    ]
    write_answers(tmp_path / "none.json", [{"caption": "a dog"}])
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize(("gain", "sure"), [(0.2, True), (0.0, False)])
def test_paired_bootstrap(gain, sure, tmp_path, capsys):
    rng = np.random.default_rng(0)
    first = rng.random(200)
    second = first + gain + 0.3 * rng.normal(size=200)
    for name, scores in (("a", first), ("b", second)):
        lines = [{"test": "it/t", "sample": n, "score": s} for n, s in enumerate(scores)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(li) + "\n" for li in lines))
    assert compare.main([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    found = json.loads(capsys.readouterr().out)["it/t"]
    assert (found["interval"][0] > 0) == sure
    assert found["difference"] == pytest.approx((second - first).mean())


def test_files_without_scores_are_named(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"test": "it/t", "sample": 1}\n')
    assert compare.main([str(tmp_path / "a.jsonl")] * 2) == 2
    assert "no scored sample in common" in capsys.readouterr().err


def test_median_rank_counts_ties_by_their_expectation():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    relevant = np.array([[False, True, False], [True, False, False]])
    assert median_rank(scores, relevant) == 2.0


def test_reranking_fuses_every_pair_with_its_own_image(tiny_config, tiny_processor, monkeypatch):
    """The logits are those of each pair by itself, and an image is projected once."""
    data = {"stickers": {"kind": "scene", "count": 4}}
    task = build_task("it", {"type": "retrieval", "batch_size": 2, "data": data, "reranked": 3})
    task.prepare_texts(tiny_processor)
    model = build_model(tiny_config).eval()
    records = TestRecords(StickerRecords(StickerData(kind="scene", count=4), 64))
    given = {}
    rerank = task._rerank

    def keep(model, candidates, embeds, texts):
        found = rerank(model, candidates, embeds, texts)
        given.update(embeds=embeds, texts=texts, found=found.numpy(), wanted=candidates.numpy())
        return found

    projected = []
    project = model.fusion_encoder.project_context
    monkeypatch.setattr(
        model.fusion_encoder, "project_context", lambda e: projected.append(len(e)) or project(e)
    )
    task._rerank = keep
    with torch.no_grad():
        task.measure(model, records)
    found, wanted = given["found"], given["wanted"]
    assert (np.isfinite(found) == wanted).all()
    assert all((wanted.sum(axis=axis) >= 3).all() for axis in (0, 1)) and not wanted.all()
    assert projected == [1] * 4
    for image, text in np.argwhere(wanted)[:4]:
        mask, embeds = given["texts"][text]
        fused = model.fuse(embeds[None], mask[None], given["embeds"][image][None])
        alone = float(model.match_logits(fused)[0, 1].detach())
        assert found[image, text] == pytest.approx(alone, abs=1e-4)


def test_scorers_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install pycocoevalcap"):
        require_coco()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="needs Java"):
        require_coco()


def test_the_fields_caption_scores():
    pytest.importorskip("pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("Java is not here")
    texts = ["a dog runs on the lawn", "two men ride red bicycles"]
    found = coco_scores([{"caption": text, "references": [text]} for text in texts])
    assert found["coco_bleu_4"] == pytest.approx(1, abs=1e-6)
    assert found["coco_meteor"] == pytest.approx(1, abs=0.01)
