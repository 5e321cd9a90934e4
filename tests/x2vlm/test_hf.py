"""Our models in transformers: Auto classes, pipelines, and folders that carry their own code."""

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

import x2vlm.hf  # noqa: F401 (it registers)
from tests.tree import ROOT
from x2vlm import Predictor
from x2vlm.hf.modeling_x2vlm import X2VLMModel, X2VLMProcessor

LABELS = ["a red car", "dog"]


@pytest.fixture(scope="module")
def predictor(tiny_folder):
    return Predictor.from_pretrained(tiny_folder)


def found_by_pipeline(folder, image, labels):
    detector = pipeline("zero-shot-object-detection", model=str(folder))
    found = detector(image, candidate_labels=labels, threshold=0.0)
    return {one["label"]: (one["score"], tuple(one["box"].values())) for one in found}


def equal_boxes(predictor, folder, image, labels):
    found = found_by_pipeline(folder, image, labels)
    for one in predictor.ground(image, labels):
        score, box = found[one.phrase]
        assert score == pytest.approx(one.match, abs=1e-4)
        assert all(abs(edge - own) <= 1 for edge, own in zip(box, one.box_xyxy, strict=True))


def test_boxes_of_the_pipeline_are_those_of_ground(predictor, tiny_folder, photo):
    equal_boxes(predictor, tiny_folder, photo, LABELS)


@pytest.mark.parametrize("model", ["mini", "photo"])
def test_bundled_models_open_in_the_pipeline(model):
    folder = ROOT / "assets" / model
    image = str(ROOT / "assets" / "examples" / "scene.png")
    equal_boxes(Predictor.from_pretrained(folder), folder, image, ["the flamingo"])


def test_absent_labels_are_below_the_default_threshold(predictor, tiny_folder, photo):
    matches = {one.text: one.probability for one in predictor.match(photo, LABELS)}
    found = pipeline("zero-shot-object-detection", model=str(tiny_folder))(
        photo, candidate_labels=LABELS
    )
    assert {one["label"] for one in found} == {t for t, match in matches.items() if match >= 0.1}


def test_labels_are_ranked_by_similarity(predictor, tiny_folder, photo):
    classifier = pipeline("zero-shot-image-classification", model=str(tiny_folder))
    found = classifier(photo, candidate_labels=LABELS, hypothesis_template="{}")
    matches = predictor.match(photo, LABELS)
    logits = torch.tensor([m.similarity for m in matches]) / 0.07
    expected = dict(zip(LABELS, logits.softmax(0).tolist(), strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(expected, abs=1e-3)


def test_questions_are_answered_and_empty_texts_captioned(predictor, tiny_folder, photo):
    written = pipeline("image-text-to-text", model=str(tiny_folder))
    (answer,) = written(images=photo, text="what color is it?", return_full_text=False)
    assert answer["generated_text"] == predictor.answer(photo, "what color is it?").best
    (caption,) = written(images=photo, text="", max_new_tokens=6)
    expected = predictor.caption(photo, max_new_tokens=6)[0].text
    assert caption["generated_text"].split() == expected.split()


def test_auto_classes_are_ours(tiny_folder):
    assert isinstance(AutoModel.from_pretrained(tiny_folder), X2VLMModel)
    assert isinstance(AutoProcessor.from_pretrained(tiny_folder), X2VLMProcessor)
    assert AutoConfig.from_pretrained(tiny_folder).core.vision.image_size == 64


def test_a_round_trip_keeps_every_bit(tiny_folder, tmp_path):
    model = AutoModel.from_pretrained(tiny_folder)
    model.save_pretrained(tmp_path / "copy")
    again = AutoModel.from_pretrained(tmp_path / "copy")
    for (name, one), other in zip(
        model.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    weights = (tmp_path / "copy" / "model.safetensors").read_bytes()
    assert weights == (tiny_folder / "model.safetensors").read_bytes()


def test_what_transformers_saved_opens_in_a_predictor(predictor, tiny_folder, tmp_path, photo):
    AutoModel.from_pretrained(tiny_folder).save_pretrained(tmp_path / "copy")
    again = Predictor.from_pretrained(tmp_path / "copy")
    assert again.match(photo, "dog") == predictor.match(photo, "dog")
    assert again.info.thresholds == predictor.info.thresholds


def test_embeddings_and_features(predictor, tiny_folder, photo):
    model = AutoModel.from_pretrained(tiny_folder)
    processor = AutoProcessor.from_pretrained(tiny_folder)
    inputs = processor(images=photo, text=LABELS)
    with torch.no_grad():
        out = model(**inputs)
        features = model.get_image_features(inputs["pixel_values"])
    matches = torch.tensor([m.probability for m in predictor.match(photo, LABELS)])
    assert (out.logits.softmax(-1)[:, 1] - matches).abs().max() < 1e-4
    assert abs(features[0].numpy() - predictor.image_features(photo)).max() < 1e-4


def test_a_folder_carries_its_own_code(tiny_folder, tmp_path, monkeypatch):
    """Opened by a Python that has not imported x2vlm.hf."""
    monkeypatch.setattr(X2VLMModel, "_auto_class", None)
    X2VLMModel.register_for_auto_class("AutoModel")
    folder = tmp_path / "with_code"
    AutoModel.from_pretrained(tiny_folder).save_pretrained(folder)
    assert (folder / "modeling_x2vlm.py").is_file()
    assert "AutoModel" in json.loads((folder / "config.json").read_text())["auto_map"]
    opener = "import sys\nfrom transformers import AutoModel, AutoProcessor\n"
    opener += "m = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    opener += "p = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
    opener += "print(type(m).__module__, type(p).__name__)\n"
    done = subprocess.run(
        [sys.executable, "-c", opener, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("transformers_modules.") and "X2VLMProcessor" in done.stdout
