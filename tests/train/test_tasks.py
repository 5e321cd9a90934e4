"""Every task: batches that depend on the generator alone, finite losses under the promised names,
metrics of what they name."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from train.config import build_task
from train.data.records import TestRecords
from train.data.shards import write_shards
from train.data.stickers import StickerData, StickerRecords
from train.data.vocabulary import build_tokenizer, learn_vocabulary
from train.step import checkpoint_layers
from train.tasks import TASKS, task_class
from x2vlm.config import DecoderConfig, FusionConfig, TextConfig, VisionConfig, X2VLMConfig
from x2vlm.errors import ConfigError, DataError
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import build_model
from x2vlm.processing import Processor
from x2vlm.settings import Settings
from x2vlm.stickers import corpus

SCENES = {"stickers": {"kind": "scene", "count": 50}}
VIDEOS = {"stickers": {"kind": "video", "count": 50}}
SETTINGS = {
    "image_text": {"data": SCENES},
    "video_text": {"data": VIDEOS},
    "region_text": {"data": SCENES, "augmentation": "pretrain", "max_texts": 6},
    "text": {"data": SCENES},
    "parallel_text": {"data": SCENES},
    "captioning": {"data": SCENES, "captions_per_image": 2, "first_share": 0.5},
    "question_answering": {"data": VIDEOS, "questions_per_image": 2},
    "grounding": {"data": SCENES, "phrases_per_image": 2, "augmentation": "train"},
    "retrieval": {"data": VIDEOS, "augmentation": "train"},
    "matching": {"data": SCENES},
    "scene": {
        "data": VIDEOS,
        "losses": {"contrastive_loss": 1, "matching_loss": 1, "caption_loss": 1, "answer_loss": 1},
    },
    "pair_reasoning": {
        "data": {"stickers": {"kind": "pair", "count": 50}},
        "augmentation": "train",
    },
}
SCORES = {
    "captioning": {"true", "bleu_4", "cider_d"},
    "question_answering": {"accuracy"},
    "grounding": {"accuracy", "pointing"},
    "retrieval": {"text_r@1", "image_r@10", "mean_recall"},
    "matching": {"auc"},
    "pair_reasoning": {"accuracy"},
}


@pytest.fixture(scope="module")
def processor():
    vocabulary = learn_vocabulary(corpus(3000), 1000)
    config = X2VLMConfig(
        vision=VisionConfig(
            image_size=32,
            hidden_size=16,
            num_layers=1,
            num_heads=2,
            layer_scale=None,
            position="sincos",
        ),
        text=TextConfig(
            vocab_size=1000,
            hidden_size=16,
            num_layers=1,
            num_heads=2,
            intermediate_size=32,
            max_positions=64,
        ),
        fusion=FusionConfig(num_layers=2, num_heads=2, intermediate_size=32),
        decoder=DecoderConfig(num_layers=1, max_positions=16),
        projection_size=8,
        num_frames=3,
        heads=(
            "contrastive",
            "matching",
            "box",
            "masked_lm",
            "answer_decoder",
            "pair",
            "classification",
        ),
    )
    return Processor(config, build_tokenizer(vocabulary, 64))


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return build_model(processor.config)


def prepared(kind, processor, **settings):
    losses = dict.fromkeys(task_class(kind).all_losses, 1)
    task = build_task("it", {"type": kind, "batch_size": 3, "losses": losses, **settings})
    task.prepare(processor)
    return task


def batch_of(task, seed=0):
    return task.collate(
        [task.sample(index, np.random.default_rng([seed, index])) for index in range(3)]
    )


def equal(first, second) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            equal(first[key], second[key]) for key in first
        )
    return torch.equal(first, second)


@pytest.mark.parametrize("kind", SETTINGS)
def test_batches_and_losses(kind, processor, model):
    task = prepared(kind, processor, **SETTINGS[kind])
    batch = batch_of(task)
    assert equal(batch, batch_of(task)), "the same generator must give the same batch"
    assert not equal(batch, batch_of(task, seed=1)), "another generator must change something"
    model.train()
    losses = task.training_step(model, dict(batch))
    assert set(task.loss_weights) <= set(losses)
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    gradients = torch.autograd.grad(
        sum(losses.values()), [p for p in model.parameters() if p.requires_grad], allow_unused=True
    )
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("kind", SCORES)
def test_metrics(kind, processor, model):
    task = prepared(
        kind,
        processor,
        **SETTINGS[kind],
        validation={"fresh": {"stickers": SETTINGS[kind]["data"]["stickers"] | {"count": 3}}},
    )
    model.eval()
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.no_grad():
        scores, again = task.evaluate(model), task.evaluate(model)
        with torch.autocast("cpu", torch.bfloat16):  # as in a run with bf16
            assert task.evaluate(model).keys() == scores.keys()
    assert scores == again
    assert {f"fresh_{name}" for name in {*SCORES[kind], *task.loss_weights}} <= set(scores)
    assert all(
        0 <= value <= (1e3 if name.endswith("_loss") else 10) for name, value in scores.items()
    )
    assert all(
        torch.equal(a, b) and b.grad is None
        for a, b in zip(before, model.parameters(), strict=True)
    )


def test_retrieval_by_features_alone(processor, model):
    """Without the matching loss the model needs no such head; re-ranking one candidate leaves the
    features' first choice."""
    task = prepared("retrieval", processor, data=SCENES, losses={"contrastive_loss": 1}, reranked=0)
    both = prepared("retrieval", processor, data=SCENES, reranked=1)
    features = build_model(processor.config.replace(heads=("contrastive",))).eval()
    features.load_state_dict(model.eval().state_dict(), strict=False)
    batch = batch_of(task)
    losses = task.training_step(features, batch)
    assert losses.keys() == {"contrastive_loss"}
    torch.testing.assert_close(
        losses["contrastive_loss"], both.training_step(model, batch)["contrastive_loss"]
    )
    records = TestRecords(StickerRecords(StickerData(split="test", count=4), 32))
    with torch.no_grad():
        alone, first = task.measure(features, records), both.measure(model, records)
        with torch.autocast("cpu", torch.bfloat16):
            assert task.measure(features, records).keys() == alone.keys()
    assert [alone[f"{side}_r@1"] for side in ("text", "image")] == [
        first[f"{side}_r@1"] for side in ("text", "image")
    ]


def test_validation_losses_are_means_over_whole_batches(processor, model):
    """Of the validation records, unaltered, whatever the training data and their augmentation
    are."""
    task = prepared("captioning", processor, data=SCENES, augmentation="train", label_smoothing=0.0)
    task.batch_size = 2
    records = TestRecords(StickerRecords(StickerData(split="test", count=5), 32))
    with torch.no_grad():
        found = task.validation_losses(model.eval(), records)
        task.records, task.augmentation = records, "none"
        batches = [
            task.collate([task.sample(i, np.random.default_rng(i)) for i in pair])
            for pair in ((0, 1), (2, 3))
        ]
        losses = [task.training_step(model, batch)["caption_loss"] for batch in batches]
    assert found == {"caption_loss": pytest.approx(float(sum(losses)) / 2)}


def photos(folder, entries, format="image_text"):
    """Data of some lines, each with the same image."""
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    text = "".join(json.dumps({"image": "a.png"} | entry) + "\n" for entry in entries)
    (folder / f"{format}.jsonl").write_text(text)
    return {"files": [str(folder / f"{format}.jsonl")], "format": format}


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_test_records_are_left_out_and_named(processor, model, tmp_path, capsys, workers):
    data = photos(
        tmp_path,
        [{"caption": "a red heart"}, {"caption": ""}, {"caption": "a dog"}, {"captoin": "x"}],
    )
    task = prepared("retrieval", processor, data=data, validation={"v": data})
    records = task.open_test(task.data, workers=workers)
    with torch.no_grad():
        assert task.measure(model.eval(), records)["text_r@1"] in (0, 0.5, 1)
        losses = task.validation_losses(
            model, records
        )  # of the two that can be read, though a batch has three
    assert losses.keys() == {"contrastive_loss", "matching_loss"} and all(
        map(np.isfinite, losses.values())
    )
    assert [said.split(": ")[0] for said in records.unreadable] == [
        "image_text.jsonl, line 2",
        "image_text.jsonl, line 4",
    ]
    assert (
        capsys.readouterr().out.count(
            "Unreadable record left out: image_text.jsonl, line 2: The text is empty"
        )
        == 1
    )
    none = task.open_test(
        build_task(
            "it", {"type": "retrieval", "batch_size": 2, "data": photos(tmp_path, [{}])}
        ).data
    )
    with pytest.raises(
        DataError, match=r"No record can be read; the first: image_text.jsonl, line 1: "
    ):
        task.measure(model, none)


def test_records_that_a_task_cannot_use_are_named(processor, tmp_path):
    rng = np.random.default_rng(0)
    unlabelled = photos(tmp_path, [{"caption": "a dog"}])
    with pytest.raises(
        DataError,
        match=r"image_text.jsonl, line 1: there is no regions, which the task needs, only",
    ):
        prepared("grounding", processor, data=unlabelled).sample(0, rng)
    with pytest.raises(DataError, match="line 1: there is one text instead of two"):
        prepared("parallel_text", processor, data=unlabelled).sample(0, rng)
    with pytest.raises(DataError, match="line 1: the label 2 is none of 0 to 1"):
        data = photos(tmp_path, [{"sentence": "a dog", "label": 2}], "labelled")
        prepared("classification", processor, data=data).sample(0, rng)
    with pytest.raises(
        DataError,
        match=r"The answer '(very ){8}' is longer than the 16 tokens that the decoder reads",
    ):
        data = photos(tmp_path, [{"question": "what", "answer": "very " * 20}], "question_answer")
        prepared("question_answering", processor, data=data).sample(0, rng)
    with pytest.raises(ConfigError, match="max_tokens is 65; this text encoder reads 64 at most"):
        prepared("retrieval", processor, data=SCENES, max_tokens=65)


def test_regions_with_several_texts_are_learnt_with_each(processor, tmp_path):
    data = photos(
        tmp_path,
        [{"elems": [{"bb": [0, 0, 8, 8], "caption": ["a dog", "a heart"]}]}],
        "region_text",
    )
    task = prepared("region_text", processor, data=data)
    samples = [task.sample(0, np.random.default_rng(seed)) for seed in range(20)]
    assert {item.text for sample in samples for item, _ in sample["items"]} == {"a dog", "a heart"}


def test_damaged_shards_are_left_out_of_training_but_not_of_a_test(processor, tmp_path):
    write_shards(StickerData(count=4), 32, tmp_path, per_shard=2)
    damaged = tmp_path / "scene-00001.tar"
    damaged.write_bytes(damaged.read_bytes()[:1024])
    data = {"files": [str(tmp_path / "*.tar")], "format": "record"}
    task = prepared("grounding", processor, data=data)
    assert len(task) == 2 and 0 < sum(task.left_out().values()) < 0.5
    with pytest.raises(DataError, match=r"scene-00001.tar is no whole tar file"):
        prepared("grounding", processor, data=data, validation={"v": data})


@pytest.mark.parametrize("kind", ["image_text", "region_text", "parallel_text"])
def test_a_loss_that_is_not_named_is_not_computed(processor, kind):
    """The contrastive-only ablation needs no fusion and none of its heads."""
    task = prepared(kind, processor, **SETTINGS[kind], losses={"contrastive_loss": 1})
    torch.manual_seed(0)
    model = build_model(processor.config.replace(heads=("contrastive",)))
    model.fusion_encoder.register_forward_pre_hook(lambda *_: pytest.fail("the fusion encoder ran"))
    batch = batch_of(task)
    assert task.training_step(model, batch).keys() == {"contrastive_loss"}


def test_every_type_is_tested_or_reported():
    elsewhere = {"photos", "dense_boxes", "attributes", "multiple_choice"}
    elsewhere |= {"self_critical", "text_assignment"}
    assert set(TASKS) - set(SETTINGS) == {"classification", *elsewhere}


def test_classification(processor, model, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    entries = [
        {"video_frames": ["a.png"] * 2, "question": "is there a dog", "label": label}
        for label in (0, 1, -100)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    data = {"files": [str(tmp_path / "data.jsonl")], "format": "labelled"}
    task = prepared("classification", processor, data=data, validation={"v": data})
    loss = task.training_step(model, batch_of(task))["classification_loss"]
    assert torch.isfinite(loss)
    assert (
        task.evaluate(model.eval())["v_accuracy"] <= 2 / 3
    )  # an answer outside the list is always wrong
    assert sorted(task.order(np.random.default_rng(0))) == [0, 1, 2]


class ColourModel(torch.nn.Module):
    """Sees whether an image is more red than blue, reads whether a text says "red" or "blue", and
    matches the two."""

    def __init__(self, processor):
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(1))
        self.config = processor.config
        self.red, self.blue = (processor.pieces(word)[0] for word in ("red", "blue"))

    def encode_visual(self, visual):
        return (visual[:, 0] - visual[:, 2]).mean(dim=(1, 2))[:, None, None].expand(-1, 2, 1)

    def encode_text(self, input_ids, attention_mask):
        return ((input_ids == self.red).sum(dim=1) - (input_ids == self.blue).sum(dim=1)).float()[
            :, None, None
        ]

    def fuse(self, text_embeds, attention_mask, image_embeds):
        return text_embeds * image_embeds[:, :1].repeat_interleave(
            len(text_embeds) // len(image_embeds), 0
        )

    def match_logits(self, fused):
        return torch.cat([-fused[:, 0], fused[:, 0]], dim=1)

    def image_features(self, embeds):
        return embeds[:, 0].sign()

    text_features = image_features


def colour_record(captions=("red", "blue")):
    return {
        "images": [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")],
        "captions": list(captions),
    }


def test_winoground_takes_caption_i_to_image_i(processor):
    task = prepared("matching", processor, data={"stickers": {"kind": "order", "count": 2}})
    oracle = ColourModel(processor)
    right = task.measure(oracle, TestRecords([colour_record()] * 3))
    assert right == {"text": 1, "image": 1, "group": 1}
    assert task.measure(oracle, TestRecords([colour_record(("blue", "red"))] * 3)) == {
        "text": 0,
        "image": 0,
        "group": 0,
    }


def test_absent_phrases_score_below_true_ones(processor):
    task = prepared("matching", processor, data=SCENES)
    record = {
        "image": Image.new("RGB", (8, 8), "red"),
        "captions": ["a red dog"],
        "absent": ["a blue dog"],
    }
    assert task.measure(ColourModel(processor), TestRecords([record]))["auc"] == 1.0
    swapped = record | {"captions": ["blue"], "absent": ["red"]}
    assert task.measure(ColourModel(processor), TestRecords([swapped]))["auc"] == 0.0


def test_retrieval_finds_its_own(processor):
    task = prepared("retrieval", processor, data=SCENES, reranked=2)
    red, blue = colour_record()["images"]
    records = [
        {"image": red, "captions": ["red", "a red dog"]},
        {"image": blue, "captions": ["blue"]},
    ]
    assert task.measure(ColourModel(processor), TestRecords(records))["mean_recall"] == 1.0
    wrong = [{"image": red, "captions": ["blue"]}, {"image": blue, "captions": ["red"]}]
    scores = task.measure(ColourModel(processor), TestRecords(wrong))
    assert scores["text_r@1"] == scores["image_r@1"] == 0.0


def test_matching_labels_say_what_is_there(processor):
    task = prepared("matching", processor, data=SCENES, true_texts=3, absent_texts=2)
    for index in range(10):
        record, sample = task.records[index], task.sample(index, np.random.default_rng(index))
        true = {
            text_key(task, text)
            for text in [*record["captions"], *(region["text"] for region in record["regions"])]
        }
        absent = {text_key(task, text) for text in record["absent"]}
        assert sample["labels"] == [1, 1, 1, 0, 0]
        for text, label in zip(sample["texts"], sample["labels"], strict=True):
            assert text.key in (true if label else absent)


def text_key(task, text):
    return task.encode(text).key


def test_regions_of_a_batch(processor):
    task = prepared("region_text", processor, data=SCENES, max_regions=4)
    batch = batch_of(task)
    grid = processor.config.vision.grid_size[0]
    for box, mask, is_image in zip(
        batch["target_boxes"], batch["patch_mask"], batch["is_image"], strict=True
    ):
        assert is_image == (box.tolist() == [0.5, 0.5, 1, 1])
        cx, cy, w, h = box.tolist()
        rows, columns = mask.view(grid, grid).nonzero(as_tuple=True)
        assert (
            columns.min() <= cx * grid <= columns.max() + 1
            and rows.min() <= cy * grid <= rows.max() + 1
        )
        assert mask.sum() >= w * h * grid**2 - 1e-3
    assert batch["image_index"].bincount().max() <= 4 and batch["is_image"].sum() == 3
    assert (
        len(batch_of(prepared("region_text", processor, data=SCENES, max_texts=5))["input_ids"])
        == 5
    )


def test_stickers_curriculum_echo_and_order(processor):
    records = StickerRecords(StickerData(curriculum=[(0, 1), (5, 2)], count=20), 32)
    assert all(len(records[index]["scene"].items) == 1 for index in range(5))
    assert {len(records[index]["scene"].items) for index in range(5, 20)} == {1, 2}
    echo = StickerRecords(StickerData(count=8, echo=2, echo_window=4), 32)
    seen = [echo[index]["scene"] for index in range(16)]
    assert len(echo) == 16 and seen[0:4] == seen[4:8] != seen[8:12] == seen[12:16]
    task = prepared("grounding", processor, data=SCENES)
    assert task.order(np.random.default_rng(0)).tolist() == list(range(50))
    assert (
        task.fingerprint()
        != prepared("grounding", processor, data={"stickers": {"count": 51}}).fingerprint()
    )


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"stickers": {"kind": "scene"}, "files": ["x.jsonl"]},
        {"stickers": {"kind": "film"}},
        {"stickers": {"count": 0}},
        {"file": ["x"]},
    ],
)
def test_bad_data_settings_fail_early(data):
    with pytest.raises(ConfigError):
        build_task("it", {"type": "grounding", "batch_size": 2, "data": data})


def test_ranked_captions_are_those_of_a_predictor(processor, model):
    """Out of all that the beams find, the same caption is taken; it differs from the likeliest one
    somewhere."""
    model = copy.deepcopy(model).eval()
    records = TestRecords(StickerRecords(StickerData(count=12), 32))
    plain = Predictor.from_model(
        copy.deepcopy(model), processor, Settings(min_length=0, no_repeat_ngram_size=0)
    )
    told = [
        caption.match
        for record in records
        for caption in plain.caption(record["image"], num_beams=4, num_captions=4, max_new_tokens=8)
    ]
    with torch.no_grad():  # random weights match everything about alike
        last = model.matching_head[-1]
        own = float(last.bias[1] - last.bias[0])
        middle = float(np.median(np.log(told) - np.log1p(-np.array(told))))
        last.weight *= 400
        last.bias[1] -= 400 * (middle - own) + own
    settings = {
        "num_beams": 4,
        "min_length": 0,
        "max_new_tokens": 8,
        "max_tokens": 40,
        "data": SCENES,
    }
    with torch.no_grad():
        likeliest, ranked = (
            prepared("captioning", processor, ranked=r, **settings).write(model, records)
            for r in (False, True)
        )
    predictor = Predictor.from_model(
        model, processor, Settings(min_length=0, no_repeat_ngram_size=0)
    )
    expected = [
        predictor.caption(record["image"], num_beams=4, max_new_tokens=8)[0].text
        for record in records
    ]
    assert ranked == expected != likeliest


def test_gradient_checkpointing_keeps_less_and_learns_the_same(processor):
    """Same losses and gradients, dropout included, with a fraction of what is kept in between."""
    task = prepared("image_text", processor, data=SCENES)
    batch = batch_of(task)

    def step(model) -> tuple[int, dict[str, torch.Tensor]]:
        kept: dict[int, int] = {}

        def keep(tensor):
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sum(task.training_step(model.train(), batch).values()).backward()
        return sum(kept.values()), {n: p.grad for n, p in model.named_parameters()}

    torch.manual_seed(0)
    plain = build_model(processor.config)
    lean = copy.deepcopy(plain)
    checkpoint_layers(lean)
    (much, expected), (less, found) = step(plain), step(lean)
    assert less < 0.7 * much
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, msg=name)
