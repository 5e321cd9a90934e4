"""The sticker world: same seed, same bytes; boxes that fit the pixels; disjoint splits; balanced
questions."""

import io
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from x2vlm.errors import ParameterError
from x2vlm.stickers import (
    ANSWERS,
    HELD_OUT_COLOURS,
    HELD_OUT_RELATIONS,
    SPLITS,
    corpus,
    make_order_record,
    make_pair_record,
    make_record,
    make_video_record,
    render,
    sample_scene,
    sample_video,
    split_seeds,
)
from x2vlm.stickers.concepts import BACKGROUNDS, CONCEPTS, PLURAL, SHAPES, SINGULAR
from x2vlm.stickers.render import paste_item
from x2vlm.stickers.scene import CONTAINER, LARGE, SMALL
from x2vlm.stickers.splits import held_out_items
from x2vlm.stickers.sprites import extent, sprite
from x2vlm.stickers.videos import frame_items

MAKERS = (make_record, make_video_record, make_order_record, make_pair_record)


def seeds(split: str, count: int) -> range:
    return split_seeds(split)[500 : 500 + count]


def pixels(record: dict) -> list[bytes]:
    return [p.tobytes() for p in record.get("frames") or record.get("images") or [record["image"]]]


def texts(record: dict) -> list[str]:
    found = [*record.get("captions", ()), *record.get("absent", ())]
    found += [record["statement"]] if "statement" in record else []
    found += [region["text"] for region in record.get("regions", ())]
    found += [question["question"] for question in record.get("questions", ())]
    freely = [text for key in ("free_captions", "free_absent") for text in record.get(key, ())]
    freely += [region["text"] for region in record.get("free_regions", ())]
    for key in ("free_questions", "order_questions"):
        freely += [question["question"] for question in record.get(key, ())]
    return found + [text.lower() for text in freely]


@pytest.mark.parametrize("make", MAKERS)
def test_a_record_is_a_pure_function_of_its_seed(make):
    first, again, other = make(41, "train", 96), make(41, "train", 96), make(42, "train", 96)
    assert pixels(first) == pixels(again) != pixels(other)
    assert repr({k: v for k, v in first.items() if not k.startswith(("image", "frames"))}) == repr(
        {k: v for k, v in again.items() if not k.startswith(("image", "frames"))}
    )


def test_splits_are_disjoint_and_checked():
    ranges = sorted((split_seeds(split).start, split_seeds(split).stop) for split in SPLITS)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(ranges))
    with pytest.raises(ParameterError, match=r"\[param/seed\]"):
        make_record(split_seeds("test").start, "train")
    with pytest.raises(ParameterError, match=r"\[param/split\]"):
        sample_scene(0, "holiday")


def test_words_name_one_thing_only():
    forms = [form for concept in CONCEPTS for form in (concept.name, *concept.synonyms)]
    assert (
        len(CONCEPTS) >= 120
        and len(set(forms)) == len(forms)
        and not set(forms) & {*SHAPES, *BACKGROUNDS}
    )
    assert {form: noun for form, noun in PLURAL.items() if SINGULAR.get(form, noun) != noun} == {}
    assert len(set(ANSWERS)) == len(ANSWERS) <= 400


def test_every_sprite_fills_its_tile():
    for kind, colour in [(concept.name, "") for concept in CONCEPTS] + [
        (shape, "red") for shape in SHAPES
    ]:
        alpha = np.asarray(sprite(kind, colour).getchannel("A"))
        assert (alpha > 128).mean() > 0.08, kind
        x0, y0, x1, y1 = extent(kind, 0, False)
        assert 0.85 < max(x1 - x0, y1 - y0) <= 1, kind


def test_boxes_lie_in_the_image_and_fit_the_pixels():
    size = 192
    for seed in seeds("train", 60):
        for item in sample_scene(seed).items:
            cx, cy, w, h = item.box
            assert 0 <= cx - w / 2 < cx + w / 2 <= 1 and 0 <= cy - h / 2 < cy + h / 2 <= 1
            least, most = SMALL if item.size == "small" else (LARGE[0], CONTAINER[1])
            assert least <= max(w, h) + 1e-9 and max(w, h) - 1e-9 <= most
            canvas = Image.new("RGBA", (size, size))
            paste_item(canvas, item)
            drawn = canvas.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox()
            expected = [size * v for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]
            assert np.abs(np.subtract(drawn, expected)).max() < 2.5, (seed, item)


def test_items_do_not_overlap_unless_one_lies_inside_a_container():
    for seed in seeds("train", 150):
        items = sample_scene(seed).items
        for i, a in enumerate(items):
            for b in items[i + 1 :]:
                apart = [
                    abs(a.box[k] - b.box[k]) >= (a.box[k + 2] + b.box[k + 2]) / 2 for k in (0, 1)
                ]
                within = all(
                    abs(a.box[k] - b.box[k]) <= (a.box[k + 2] - b.box[k + 2]) / 2 for k in (0, 1)
                )
                assert any(apart) or (within and a.kind in ("circle", "square", "ring")), (
                    seed,
                    a,
                    b,
                )


def test_scenes_are_varied():
    scenes = [sample_scene(seed) for seed in seeds("train", 400)]
    assert {len(scene.items) for scene in scenes} == set(range(1, 7))
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert len({item.kind for scene in scenes for item in scene.items}) > 0.9 * (
        len(CONCEPTS) + len(SHAPES)
    )
    assert max(len(sample_scene(seed, max_items=2).items) for seed in seeds("train", 50)) == 2


def test_images_are_rgb_of_the_size_asked_for_and_a_scene_scales():
    scene = sample_scene(3)
    small, large = render(scene, 96), render(scene, 288)
    assert small.mode == large.mode == "RGB" and (small.size, large.size) == ((96, 96), (288, 288))
    difference = np.subtract(
        np.asarray(large.resize((96, 96)), np.int16), np.asarray(small, np.int16)
    )
    assert np.abs(difference).mean() < 16


def told_combinations(text: str) -> set[tuple[str, ...]]:
    """Held-out combinations that a text speaks of, found by plain search for words."""
    kinds = {form: noun for table in (SINGULAR, PLURAL) for form, noun in table.items()}
    noun = "|".join(sorted(map(re.escape, kinds), key=len, reverse=True))
    found = {
        (c, kinds[k])
        for c, k in re.findall(
            rf"\b(\w+) ({'|'.join(f for f in kinds if kinds[f] in SHAPES)})\b", text
        )
    }
    for a, relation, b in re.findall(
        rf"\b({noun}) (left of|right of|above|below|next to|inside) (?:\w+ ){{0,3}}?({noun})\b",
        text,
    ):
        a, b = kinds[a], kinds[b]
        found |= (
            {(a, relation, b)} if relation in ("left of", "above", "inside", "next to") else set()
        )
        found |= {
            "right of": {(b, "left of", a)},
            "below": {(b, "above", a)},
            "next to": {(b, "next to", a)},
        }.get(relation, set())
    return found & (HELD_OUT_COLOURS | HELD_OUT_RELATIONS)


def test_the_word_search_for_held_out_combinations_works():
    assert told_combinations("is the small cat right of the large dog?") == {
        ("dog", "left of", "cat")
    }
    assert told_combinations("two large red triangles") == {("red", "triangle")}
    assert told_combinations("a cat left of a dog") == set()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_combinations_are_absent_from_scenes_and_texts(split):
    for seed in seeds(split, 250):
        assert held_out_items(sample_scene(seed, split).items) == []
        for make in MAKERS[:1] if seed % 5 else MAKERS:
            for text in texts(make(seed, split, 32)):
                assert not told_combinations(text), text


def test_unseen_scenes_contain_held_out_combinations_and_ask_about_them():
    told = set()
    for seed in seeds("unseen", 250):
        record = make_record(seed, "unseen", 32)
        assert held_out_items(record["scene"].items) and record["questions"] and record["regions"]
        told |= {x for region in record["regions"] for x in told_combinations(region["text"])}
        if seed % 5 == 0:
            assert make_video_record(seed, "unseen", 32)["questions"]
            assert any(
                told_combinations(caption)
                for caption in make_order_record(seed, "unseen", 32)["captions"]
            )
    assert len(told) > 0.8 * len(HELD_OUT_COLOURS | HELD_OUT_RELATIONS)


def test_answers_are_closed_and_yes_and_no_are_balanced():
    answers = defaultdict(Counter)
    for seed in seeds("train", 1200):
        for question in make_record(seed, "train", 16)["questions"]:
            assert question["answer"] in ANSWERS
            answers[question["kind"]][question["answer"]] += 1
    yes_no = Counter()
    for kind, counts in answers.items():
        if "yes" in counts:
            yes_no += counts
            assert 0.40 < counts["yes"] / counts.total() < 0.60, kind
        else:
            assert counts.most_common(1)[0][1] < 0.62 * counts.total(), kind
    assert 0.45 < yes_no["yes"] / yes_no.total() < 0.55
    labels = [make_pair_record(seed, "train", 16)["label"] for seed in seeds("train", 200)]
    assert 0.4 < np.mean(labels) < 0.6


def test_videos_show_what_they_tell():
    for seed in seeds("train", 40):
        video = sample_video(seed)
        shown = [frame_items(video, frame) for frame in range(video.frames)]
        assert 6 <= video.frames <= 16 and len(video.summary.items) == len(video.tracks)
        for track in video.tracks:
            frames = sum(
                any(i.kind == track.item.kind and i.angle == track.item.angle for i in items)
                for items in shown
            )
            assert frames >= 0.35 * video.frames
    record = make_video_record(5, "train", 64)
    assert {frame.size for frame in record["frames"]} == {(64, 64)}
    assert all(question["answer"] in ANSWERS for question in record["questions"])


def test_corpus_has_all_kinds_of_text_and_as_many_as_asked_for():
    lines = list(corpus(600, seed=3))
    assert len(lines) == 600 and lines == list(corpus(600, seed=3))
    assert all(line == line.lower().strip() and line for line in lines)
    for piece in ("how many", "left of", "a picture of", "pictures", "yes"):
        assert any(piece in line for line in lines), piece


def test_the_sample_writer_makes_a_page(tmp_path, monkeypatch, capsys):
    from x2vlm.stickers.__main__ import main

    monkeypatch.setattr(
        "sys.argv", ["stickers", "--count", "3", "--size", "64", "--out", str(tmp_path)]
    )
    main()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    files = re.findall(r'src="([^"]+)"', page)
    assert len(files) == len(set(files)) == 3 * 2 + 1 + 2 + 2
    assert all(
        Image.open(io.BytesIO((tmp_path / file).read_bytes())).size == (64, 64) for file in files
    )
    assert "6 records" in capsys.readouterr().out
