"""Metrics on cases that can be worked out by hand, and on the recorded values of the official
arithmetic."""

import math

import numpy as np
import pytest

from train.metrics.answers import normalize_answer, soft_accuracy
from x2vlm.caption_metrics import bleu, cider_d, rouge_l, tokenize
from x2vlm.metrics import (
    auc,
    grounding_accuracy,
    pixel_iou,
    pointing_hits,
    recall_at,
    retrieval_recall,
    winoground,
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 10, 10], 1 / 3),
        ([0, 0, 10, 10], [9, 0, 10, 10], 0.0),
        ([0, 0, 10, 10], [0, 5, 10, 10], 1 / 3),
        ([0.5, 0.5, 10, 10], [0, 0, 10.3, 9.7], 0.8215034),
    ],
)
def test_pixel_iou_vectors(first, second, expected):
    assert pixel_iou(np.array([first]), np.array([second]))[0] == pytest.approx(expected, abs=1e-7)


def test_grounding_accuracy_counts_the_threshold_as_right():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]])
    assert grounding_accuracy(boxes, np.array([[0, 0, 10, 20], [0, 0, 10, 21]])) == 0.5


def test_tokenize_like_penn_treebank():
    assert tokenize("A man's dog doesn't run, it JUMPS!") == [
        "a",
        "man",
        "'s",
        "dog",
        "does",
        "n't",
        "run",
        "it",
        "jumps",
    ]
    assert tokenize("a black-and-white T-shirt (2.5 m)") == [
        "a",
        "black-and-white",
        "t-shirt",
        "2.5",
        "m",
    ]


def test_bleu_of_equal_and_of_short_captions():
    references = [["a dog runs on the grass", "the dog is running"], ["two cats sleep on a sofa"]]
    assert bleu([group[0] for group in references], references) == pytest.approx(
        [1, 1, 1, 1], abs=1e-6
    )
    one = bleu(["a dog"], [["a dog runs fast"]])
    assert one[0] == pytest.approx(math.exp(1 - 4 / 2), rel=1e-6)
    assert bleu(["the the the"], [["the cat sat"]])[0] == pytest.approx(1 / 3, rel=1e-6)


def test_rouge_l_by_hand():
    precision, recall, beta = 3 / 4, 3 / 5, 1.2
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert rouge_l(["a dog runs fast"], [["a brown dog runs away"]]) == pytest.approx(expected)
    assert rouge_l(["", "x"], [["a"], ["x"]]) == 0.5


def test_cider_d():
    references = [
        ["a dog runs on the grass"],
        ["two cats sleep on a sofa"],
        ["a red car in the street"],
    ]
    perfect = cider_d([group[0] for group in references], references)
    assert perfect == pytest.approx(10.0)
    assert cider_d(["a dog", *(group[0] for group in references[1:])], references) < perfect
    shuffled = cider_d([references[1][0], references[2][0], references[0][0]], references)
    assert shuffled < 1
    # by hand: x is one of three unigrams with idf log 2 in candidate and reference; nothing longer
    # is shared
    assert cider_d(["x b c", "p q r"], [["x y z"], ["p q r"]]) == pytest.approx(
        (10 / 3 / 4 + 10 * 3 / 4) / 2
    )


def test_vqa_soft_accuracy():
    answers = ["blue"] * 3 + ["navy"] * 7
    assert soft_accuracy("blue", answers) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert soft_accuracy("navy", answers) == 1.0
    assert soft_accuracy("red", answers) == 0.0
    assert soft_accuracy("The  Dog!", ["dog"] * 2 + ["cat"] * 8) == pytest.approx(
        (2 * 1 / 3 + 8 * 2 / 3) / 10
    )


def test_answer_normalisation():
    assert normalize_answer("Two dogs.") == "2 dogs"
    assert normalize_answer("dont know, a lot") == "don't know lot"
    assert normalize_answer("3.5 meters") == "3.5 meters" and normalize_answer("5.") == "5"


def test_recall_with_and_without_ties():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    relevant = np.eye(3, dtype=bool)
    assert recall_at(scores, relevant, (1, 2, 3)) == pytest.approx(
        {"r@1": (1 + 0 + 1 / 3) / 3, "r@2": (2 + 2 / 3) / 3, "r@3": 1}
    )
    constant = recall_at(np.zeros((1, 10)), np.arange(10)[None] < 2, (1, 5))
    assert constant == pytest.approx(
        {"r@1": 0.2, "r@5": 1 - (8 * 7 * 6 * 5 * 4) / (10 * 9 * 8 * 7 * 6)}
    )


def test_retrieval_with_several_captions():
    image_of_text = np.array([0, 0, 1])
    to_text = np.array([[0.1, 0.9, 0.5], [0.8, 0.0, 0.7]])
    found = retrieval_recall(to_text, to_text.T, image_of_text, (1,))
    assert found == pytest.approx(
        {
            "text_r@1": 0.5,
            "image_r@1": 2 / 3,
            "mean_recall": (0.5 + 2 / 3) / 2,
            "text_median_rank": 1.5,
            "image_median_rank": 1,
        }
    )


def test_auc():
    assert auc([3, 4], [1, 2]) == 1.0
    assert auc([1, 1], [1, 1]) == 0.5
    assert auc([2, 0], [1]) == 0.5
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 50), rng.normal(0, 1, 40)
    pairs = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
    assert auc(positive, negative) == pytest.approx(pairs)


def test_winoground():
    right, swapped, text_only = [[2, 1], [1, 2]], [[1, 2], [2, 1]], [[5, 1], [4, 2]]
    assert winoground(np.array([right])) == {"text": 1, "image": 1, "group": 1}
    assert winoground(np.array([swapped])) == {"text": 0, "image": 0, "group": 0}
    assert winoground(np.array([text_only, right])) == {"text": 1, "image": 0.5, "group": 0.5}
    assert winoground(np.ones((3, 2, 2)))["group"] == 0


def test_pointing_game():
    maps = np.zeros((3, 4, 4))
    maps[0, 1, 2] = maps[1, 1, 2] = 1
    boxes = np.array([[0.5, 0.25, 0.75, 0.5], [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert pointing_hits(maps, boxes).tolist() == [True, False, False]
