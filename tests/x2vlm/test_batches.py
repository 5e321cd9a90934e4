"""Lists of images: equal to one by one, in their order, and an error belongs to its own item."""

import numpy as np
import pytest
import torch
from PIL import Image

from x2vlm import Frames
from x2vlm.errors import MediaError, ParameterError, TextError, X2VLMError
from x2vlm.inference import suite
from x2vlm.inference.batch import images_at_once, in_parts, padded, spread, together

QUESTIONS = ["what color is the car?", "how many?", "is there a dog?", "who?", "where is it?"]
TEXTS = ["a red car", "a dog sitting on the grass", "man", "the large bus", "two trees"]
ASKED = [f"what color is {text}?" for text in TEXTS]
PHRASES = [["a red car"], ["dog", "the man on the left", "cat"], ["ball"], ["sky", "tree"], ["bus"]]


@pytest.fixture(scope="module")
def images():
    """Four images of several sizes and a video."""
    rng = np.random.default_rng(5)
    made = []
    for width, height in ((120, 80), (64, 64), (90, 140), (33, 200)):
        pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        made.append(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    return [made[0], made[1], Frames([made[1], made[1].rotate(90)]), *made[2:]]


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def assert_equal(found, expected, place=""):
    """Floats within 1e-4, all else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected:
            assert_equal(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_equal(one, other, f"{place}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4, rel=1e-4), place
    else:
        assert found == expected, place


CALLS = {
    "caption": lambda p, image, i: p.caption(image, num_captions=2, max_new_tokens=6),
    "sampled": lambda p, image, i: p.caption(image, do_sample=True, num_captions=3, seed=4),
    "answer": lambda p, image, i: p.answer(image, _of(QUESTIONS, i)),
    "written": lambda p, image, i: p.answer(image, _of(QUESTIONS, i), mode="generate"),
    "ground": lambda p, image, i: p.ground(image, _of(PHRASES, i)),
    "boxes": lambda p, image, i: p.ground(image, _of(PHRASES, i), explain=False),
    "match": lambda p, image, i: p.match(image, _of(PHRASES, i)),
    "explain": lambda p, image, i: p.explain(image, _of(TEXTS, i)),
    "rollout": lambda p, image, i: p.explain(image, _of(TEXTS, i), method="rollout"),
    "asked": lambda p, image, i: p.explain(image, _of(ASKED, i), use="answer"),
    "phrases": lambda p, image, i: p.match(image, ["a dog", "a red car"]),
}


def _of(texts, i):
    return texts if i is None else texts[i]


@pytest.mark.parametrize("call", CALLS)
def test_a_batch_equals_one_by_one(tiny_predictor, images, call, monkeypatch):
    monkeypatch.setattr(tiny_predictor, "batch_size", 3)  # so that there is more than one batch
    batch = CALLS[call](tiny_predictor, images, None)
    single = [CALLS[call](tiny_predictor, image, i) for i, image in enumerate(images)]
    assert_equal(plain(batch), plain(single))


def test_images_go_through_the_model_together(tiny_predictor, images, monkeypatch):
    seen = []
    original = suite.encode_together

    def counted(scenes, *rest):
        seen.append(len(scenes))
        return original(scenes, *rest)

    monkeypatch.setattr(suite, "encode_together", counted)
    monkeypatch.setattr(tiny_predictor, "_workers", 1)
    tiny_predictor.match([images[0]] * 5, "dog")
    assert seen == [5]


def test_parts_that_are_worked_on_side_by_side_keep_their_order():
    seen = []

    def run(part):
        seen.append((len(part), torch.get_num_threads()))
        return [item * 10 for item in part]

    before = torch.get_num_threads()
    assert in_parts(run, range(9), size=4, workers=3) == [item * 10 for item in range(9)]
    assert seen == [(3, 1)] * 3 and torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_part_is_raised(workers):
    def run(part):
        raise ParameterError("bad", "param/range")

    with pytest.raises(ParameterError):
        in_parts(run, range(4), size=2, workers=workers)


def test_an_error_is_that_of_its_item(tiny_predictor, images):
    shown = [images[0], "nowhere.png", images[1], images[3]]
    texts = ["dog", "dog", "  ", "a red car"]
    first, missing, empty, last = tiny_predictor.explain(shown, texts)
    assert isinstance(missing, MediaError)
    assert isinstance(empty, TextError)
    assert_equal(plain(first), plain(tiny_predictor.explain(images[0], "dog")))
    assert_equal(plain(last), plain(tiny_predictor.explain(images[3], "a red car")))


def test_no_phrases_for_one_image_are_its_error(tiny_predictor, images):
    found = tiny_predictor.ground(images[:2], [["dog"], []])
    assert isinstance(found[1], ParameterError) and found[0][0].phrase == "dog"


def test_bad_options_are_told_before_any_work(tiny_predictor, images):
    with pytest.raises(ParameterError):
        tiny_predictor.caption(images, num_beams=0)


def test_another_number_of_texts_than_of_images_is_refused(tiny_predictor, images):
    with pytest.raises(ParameterError, match="5 images and 2 texts"):
        tiny_predictor.answer(images, QUESTIONS[:2])


def test_a_list_of_texts_is_for_every_image_unless_it_holds_lists():
    assert spread(["a", "b"], 2, several=True) == [["a", "b"], ["a", "b"]]
    assert spread([["a"], ["b"]], 2, several=True) == [["a"], ["b"]]
    assert spread(["a", "b"], 2, several=False) == ["a", "b"]
    assert spread("a", 2, several=False) == ["a", "a"]


def test_a_batch_that_exceeds_the_memory_becomes_smaller():
    sizes = []

    def run(items):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError
        return [item * 10 for item in items]

    assert together(run, range(8)) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_one_item_that_exceeds_the_memory_is_its_error():
    def run(items):
        raise torch.OutOfMemoryError

    (found,) = together(run, [1])
    assert isinstance(found, X2VLMError) and found.code == "device/memory"


def test_batches_are_sized_for_the_memory(tiny_predictor, monkeypatch):
    (member,) = set(tiny_predictor._serving.values())
    assert images_at_once(member) == 8
    monkeypatch.setattr("x2vlm.inference.batch._free_memory", lambda: 1.0)
    assert images_at_once(member) == 1


def test_padding_repeats_the_last_item():
    assert padded([[1], [2, 3, 4]]) == [1, 1, 1, 2, 3, 4]
