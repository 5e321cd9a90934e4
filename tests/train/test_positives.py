"""What is true of one image is never a negative of it, in any loss that compares the samples of a
batch."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.test_tasks import model, prepared, processor  # noqa: F401 (fixtures)
from x2vlm.losses import contrastive_loss, has_negative, sample_hard_negatives


@pytest.fixture
def photos(tmp_path):
    """Writes entries of red.png, red.png and blue.png."""
    for color in ("red", "blue"):
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{color}.png")

    def write(entries, format):
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return {"files": [str(path)], "format": format}

    return write


def positives(task) -> list[list[bool]]:
    """Whether row i and row j of the batch of all samples are positives of each other."""
    samples = [task.sample(index, np.random.default_rng(index)) for index in range(len(task))]
    keys = task.collate(samples)["positives"]
    return (keys[:, None] == keys[None]).any(dim=-1).tolist()


SAME_TWO = [[True, True, False], [True, True, False], [False, False, True]]
SHOWN = ("red", "red", "blue")


@pytest.mark.parametrize("kind", ["retrieval", "image_text"])
def test_captions_of_one_image(photos, processor, kind):  # noqa: F811
    entries = [
        {"image": f"{color}.png", "caption": text}
        for color, text in zip(SHOWN, ("a dog", "a heart", "a star"))
    ]
    assert positives(prepared(kind, processor, data=photos(entries, "image_text"))) == SAME_TWO


@pytest.mark.parametrize("kind", ["retrieval", "image_text"])
def test_captions_of_one_image_id(photos, processor, kind):  # noqa: F811
    entries = [
        {"image": image, "image_id": number, "caption": text}
        for image, number, text in (
            ("red.png", 1, "a dog"),
            ("blue.png", 1, "a heart"),
            ("blue.png", 2, "a star"),
        )
    ]
    assert positives(prepared(kind, processor, data=photos(entries, "image_text"))) == SAME_TWO


@pytest.mark.parametrize("kind", ["retrieval", "image_text"])
def test_captions_of_equal_words(photos, processor, kind):  # noqa: F811
    entries = [
        {"image": "red.png", "image_id": number, "caption": text}
        for number, text in ((1, "a dog"), (2, "a dog"), (3, "a star"))
    ]
    assert positives(prepared(kind, processor, data=photos(entries, "image_text"))) == SAME_TWO


def test_equal_words_can_be_negatives(photos, processor):  # noqa: F811
    entries = [{"image": f"{color}.png", "caption": "a dog"} for color in SHOWN]
    data = photos(entries, "image_text")
    assert positives(prepared("image_text", processor, data=data, equal_texts=False)) == SAME_TWO


def test_captions_of_one_video(photos, processor):  # noqa: F811
    entries = [
        {"video_frames": [f"{color}.png"] * 2, "caption": text}
        for color, text in zip(SHOWN, ("a dog", "a heart", "a star"))
    ]
    assert positives(prepared("retrieval", processor, data=photos(entries, "video_text"))) == (
        SAME_TWO
    )


def test_sentences_in_two_languages(photos, processor):  # noqa: F811
    entries = [
        {"source_text": "a dog", "target_text": "a heart"},
        {"source_text": "a dog", "target_text": "a square"},
        {"source_text": "a star", "target_text": "a circle"},
    ]
    data = photos(entries, "parallel_text")
    assert positives(prepared("parallel_text", processor, data=data)) == SAME_TWO


def test_texts_of_one_region_and_of_the_whole_image(photos, processor):  # noqa: F811
    """Another region of the same image stays a negative."""
    entries = [
        {"image": "red.png", "caption": "a dog", "elems": [{"bb": [0, 0, 4, 4], "caption": text}]}
        for text in ("a heart", "a star")
    ]
    entries[0]["elems"].append({"bb": [4, 4, 4, 4], "caption": "a circle"})
    task = prepared("region_text", processor, data=photos(entries, "region_text"))
    samples = [task.sample(index, np.random.default_rng(index)) for index in range(2)]
    texts = [item.text for sample in samples for item, _ in sample["items"]]
    pairs = positives(task)
    together = {
        frozenset((texts[i], texts[j]))
        for i in range(len(texts))
        for j in range(len(texts))
        if i != j and pairs[i][j]
    }
    assert together == {frozenset({"a dog"}), frozenset({"a heart", "a star"})}


def joint(image, number=None, box=(0.5, 0.5, 1.0, 1.0)):
    """An entry for the joint tasks, in which no two texts are equal."""
    return {
        "images_as": "image",
        "image_members": [f"{image}.png"],
        "captions": [f"a dog {number}"],
        "false_captions": ["a cat"],
        "absent": ["a square"],
        "phrases": [],
        "questions": [{"question": "is there a dog?", "answer": "yes"}],
        "regions": [{"text": f"a heart {number}", "box": list(box)}],
    }


JOINT = {"scene": {"phrases": 1, "absent": 1, "questions": 1}, "photos": {"phrases": 1}}
LEFT, RIGHT = (0.25, 0.5, 0.5, 1.0), (0.75, 0.5, 0.5, 1.0)


def joint_positives(kind, processor, data) -> tuple[list[list[bool]], list[list[bool]]]:  # noqa: F811
    """Of the captions and of the phrases of a batch of all samples."""
    losses = {"contrastive_loss": 1, "region_contrastive_loss": 1}
    task = prepared(kind, processor, data=data, losses=losses, **JOINT[kind])
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(len(task))])
    return tuple(
        (batch[name][:, None] == batch[name][None]).any(dim=-1).tolist()
        for name in ("caption_positives", "phrase_positives")
    )


@pytest.mark.parametrize("kind", JOINT)
def test_entries_of_one_image_in_the_joint_tasks(photos, processor, kind):  # noqa: F811
    entries = [joint(image, number) for number, image in enumerate(SHOWN)]
    captions, phrases = joint_positives(kind, processor, photos(entries, "record"))
    assert captions == SAME_TWO
    assert phrases == SAME_TWO


@pytest.mark.parametrize("kind", JOINT)
def test_entries_of_one_image_id_in_the_joint_tasks(photos, processor, kind):  # noqa: F811
    images = (("red", 1), ("blue", 1), ("blue", 2))
    entries = [joint(image, n) | {"image_id": known} for n, (image, known) in enumerate(images)]
    captions, _ = joint_positives(kind, processor, photos(entries, "record"))
    assert captions == SAME_TWO


@pytest.mark.parametrize("kind", JOINT)
def test_other_regions_of_one_image_stay_negatives(photos, processor, kind):  # noqa: F811
    entries = [joint("red", n, box) for n, box in enumerate((LEFT, LEFT, RIGHT))]
    captions, phrases = joint_positives(kind, processor, photos(entries, "record"))
    assert captions == [[True] * 3] * 3
    assert phrases == SAME_TWO


@pytest.mark.parametrize("kind", JOINT)
def test_losses_of_a_batch_of_one_image(photos, processor, model, kind):  # noqa: F811
    """Without a negative, the caption of another row is true of the image as well."""
    data = photos([joint("red", number) for number in range(3)], "record")
    losses = {"contrastive_loss": 1, "region_contrastive_loss": 1, "caption_matching_loss": 1}
    task = prepared(kind, processor, data=data, losses=losses, **JOINT[kind])
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(3)])
    found = task.training_step(model, batch)
    assert all(bool(found[name].isfinite()) for name in losses)


def test_echoes_of_a_scene_are_one_image(processor):  # noqa: F811
    data = {"stickers": {"kind": "scene", "count": 2, "echo": 2, "echo_window": 1}}
    task = prepared("scene", processor, data=data, losses={"contrastive_loss": 1})
    shown = [task.sample(i, np.random.default_rng(i))["shown"] for i in range(4)]
    assert shown[0] == shown[1] != shown[2] == shown[3]


COLUMNS = torch.tensor([[1, 7], [1, 8], [2, 8], [3, 9]])


def test_rows_that_share_a_number_of_some_column_are_no_negatives():
    torch.manual_seed(0)
    drawn = torch.stack([sample_hard_negatives(torch.zeros(4, 4), COLUMNS) for _ in range(100)])
    assert [set(column.tolist()) for column in drawn.T] == [{2, 3}, {3}, {0, 3}, {0, 1, 2}]
    assert has_negative(4, COLUMNS, torch.device("cpu")).all()


def test_the_contrastive_loss_aims_at_all_positives():
    """By hand: similarities are 0, so each row's loss is log 4 whatever its targets are."""
    features = torch.eye(8)[:4], torch.eye(8)[4:]
    assert contrastive_loss(*features, 1.0, COLUMNS).item() == pytest.approx(np.log(4))
    alone = torch.tensor([1, 1, 2, 3])
    assert contrastive_loss(*features, 1.0, alone) == contrastive_loss(
        *features, 1.0, alone[:, None]
    )
