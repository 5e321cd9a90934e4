"""Images outside a model's world get a note; the bundled models tell photos from sticker scenes."""

import json

import pytest
import torch

from x2vlm import hub
from x2vlm.errors import CheckpointError
from x2vlm.inference.domain import Domain, outside_note
from x2vlm.inference.predictor import Predictor
from x2vlm.settings import DOMAIN_FILE
from x2vlm.stickers import make_record, split_seeds

SCENES = 50


def test_far_features_are_outside_and_near_ones_are_not():
    torch.manual_seed(0)
    features = torch.randn(400, 100) * torch.linspace(2, 0.1, 100)
    domain = Domain.fit(features[:300], features[300:], 0.02)
    assert not domain.outside(features[300:]) and domain.outside(features[:5] + 5)


def test_a_domain_is_read_as_it_was_written(tmp_path):
    torch.manual_seed(0)
    features = torch.randn(200, 80)
    domain = Domain.fit(features[:150], features[150:], 0.1)
    domain.write(tmp_path)
    read = Domain.read(tmp_path)
    torch.testing.assert_close(
        read.distance(features), domain.distance(features), rtol=0.01, atol=0.1
    )
    assert read.limit == pytest.approx(domain.limit)


def test_a_damaged_file_says_so(tmp_path):
    (tmp_path / DOMAIN_FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=DOMAIN_FILE):
        Domain.read(tmp_path)


def test_without_a_file_nothing_is_outside(tmp_path):
    assert Domain.read(tmp_path) is None


@pytest.fixture(scope="module", params=hub.BUNDLED)
def bundled(request):
    folder = hub.bundled_dir(request.param)
    if folder is None or not (folder / DOMAIN_FILE).is_file():
        pytest.skip(f"{request.param} is not here")
    return Predictor.from_pretrained(request.param)


def noted(predictor: Predictor, images) -> float:
    """Share of the images that are called outside."""
    note = outside_note(predictor.info.name)
    found = [note in predictor.encode(image).notes for image in images]
    return sum(found) / len(found)


def test_sticker_scenes_are_inside_mini_and_outside_photo(bundled):
    first = split_seeds("test").start + 300_000
    share = noted(bundled, (make_record(first + i, "test")["image"] for i in range(SCENES)))
    assert share <= 0.06 if bundled.info.name == "mini" else share >= 0.9


def test_photographs_are_outside_mini_and_inside_photo(bundled, shared_dir):
    folder = shared_dir / "data" / "coco_mini"
    entries = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))[:SCENES]
    share = noted(bundled, (folder / entry["file"] for entry in entries))
    assert share >= 0.9 if bundled.info.name == "mini" else share <= 0.1
