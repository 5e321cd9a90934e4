"""Self-critical training: drawn captions are scored as they were drawn, the reward is CIDEr-D above
the greedy caption, and what is rewarded becomes more probable; in both ways of writing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from train.config import build_task
from train.data.files import FileRecords
from x2vlm.inference.generation import sample
from x2vlm.modeling.build import build_model
from x2vlm.processing import Processor, normalize

REFERENCES = [["a red dog", "the dog is red"], ["two cats", "a cat and a cat"], ["a blue bird"]]


@pytest.fixture(params=["masked_lm", "causal_lm"])
def prepared(request, tiny_config, tiny_tokenizer, tmp_path):
    """A task over three images, and a model that writes by masked or by next tokens."""
    lines = []
    for number, captions in enumerate(REFERENCES):
        Image.new("RGB", (64, 64), (80 * number, 90, 40)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "captions": captions}) + "\n")
    lines.append(json.dumps({"image": "0.png"}) + "\n")  # says nothing, and is passed over
    (tmp_path / "data.jsonl").write_text("".join(lines))
    torch.manual_seed(0)
    model = build_model(tiny_config.replace(heads=(request.param,)))
    settings = {"samples": 3, "max_new_tokens": 6, "losses": {"self_critical_loss": 1}}
    data = {"files": [str(tmp_path / "data.jsonl")]}
    task = build_task("it", {"type": "self_critical", "batch_size": 3, "data": data, **settings})
    task.prepare(Processor(model.config, tiny_tokenizer))
    return task, model


def batch_of(task):
    return task.collate([task.sample(i, np.random.default_rng(i)) for i in range(3)])


def test_captions_are_scored_as_they_were_drawn(prepared):
    task, model = prepared
    model.eval()
    with torch.no_grad():
        embeds = model.encode_visual(normalize(batch_of(task)["visual"]))
        drawn = sample(
            task.decoder(model, embeds),
            torch.tensor([task.prompt_ids()] * 3),
            end_id=task.processor.sep_id,
            generators=[torch.Generator().manual_seed(seed) for seed in range(3)],
            num_samples=2,
            top_p=1.0,
            max_new_tokens=6,
        )
        captions = [one for group in drawn for one in group]
        scores, written = task.log_probabilities(model, embeds, [one.token_ids for one in captions])
    for row, real, one in zip(scores, written, captions, strict=True):
        assert row[real].tolist() == pytest.approx(one.token_log_probabilities, abs=1e-4)


def test_the_reward_is_cider_d_above_the_greedy_caption(prepared):
    task, _ = prepared
    assert task.documents == 3
    ids = [task.processor.pieces(text) for text in ("a red dog", "two cats")]
    said = [task.processor.decode(one) for one in ids]
    task.frequency.clear()  # every n-gram stands in one of three images
    found = task.advantages([ids[1]], [[ids[0], ids[1]]], [["a red dog"]]).tolist()
    assert found[1] == 0.0
    # the caption is its reference: 1 for n-grams of one to three words, of four there are none
    assert said[0] == "a red dog" and found[0] == pytest.approx(10 * 3 / 4)


def test_what_is_rewarded_becomes_more_probable(prepared, monkeypatch):
    task, model = prepared
    batch, ids = batch_of(task), [task.processor.pieces(t) for t in ("a red dog", "two cats")]
    monkeypatch.setattr(task, "draw", lambda *_: ([ids[0]] * 3, [ids] * 3))
    monkeypatch.setattr(task, "advantages", lambda *_: torch.tensor([1.0, -1.0] * 3))

    def odds() -> float:
        with torch.no_grad():
            embeds = model.encode_visual(normalize(batch["visual"]))
            scores, written = task.log_probabilities(model, embeds, ids * 3)
        rows = (scores * written).sum(dim=1)
        return float(rows[::2].sum() - rows[1::2].sum())

    before = odds()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    task.training_step(model, batch)["self_critical_loss"].backward()
    optimizer.step()
    assert odds() > before


def test_drawing_leaves_the_model_as_it_was_and_follows_the_seed(prepared):
    task, model = prepared
    visual = normalize(batch_of(task)["visual"])
    model.train()
    torch.manual_seed(3)
    first = task.draw(model, visual)
    torch.manual_seed(3)
    assert task.draw(model, visual) == first
    assert model.training and len(first[0]) == 3 and all(len(group) == 3 for group in first[1])


def test_references_come_without_their_images(prepared, tmp_path):
    task, _ = prepared
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert isinstance(task.records, FileRecords)
    assert list(task.records.captions()) == REFERENCES
