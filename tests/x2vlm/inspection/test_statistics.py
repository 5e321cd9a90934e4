"""Measures and their uncertainty, on numbers made by hand."""

import numpy as np
import pytest

from x2vlm.inspection.measure import Asked, Inspection, Measured
from x2vlm.inspection.statistics import calibration, confusion, intervals, measures, tabulate

BOX = (0.0, 0.0, 1.0, 1.0)


def image(*asked, faithfulness=None):
    return Measured("a", asked, faithfulness)


def true(iou, match=0.9, area=0.05, hit=True, text="a dog"):
    return Asked(text, True, match, BOX, BOX, iou, area, hit, agrees=hit, energy=0.5)


def absent(match, text="a cat"):
    return Asked(text, False, match, BOX)


def table(*images):
    return tabulate(Inspection("m", "", images))


def test_measures_of_a_few_boxes():
    found = measures(
        table(
            image(true(0.6, area=0.005), true(0.4, hit=False), absent(0.1), faithfulness=0.2),
            image(true(0.5, match=0.05, area=0.5), absent(0.2)),
        )
    )
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["pointing"] == pytest.approx(2 / 3)
    assert (found["accuracy_small"], found["accuracy_medium"], found["accuracy_large"]) == (1, 0, 1)
    assert found["auc"] == pytest.approx(4 / 6)
    assert found["faithfulness"] == 0.2 and found["mean_iou"] == 0.5


def test_what_the_data_do_not_say_is_none():
    found = measures(table(image(Asked("a", True, 0.5, BOX))))
    assert found["accuracy"] is None and found["auc"] is None and found["pointing"] is None


def test_calibration():
    curve = calibration(table(image(true(1, 0.95), true(1, 0.95), absent(0.95), absent(0.05))))
    assert curve["count"][9] == 3 and curve["present"][9] == pytest.approx(2 / 3)
    assert curve["error"] == pytest.approx((3 * (0.95 - 2 / 3) + 0.05) / 4)


def test_near_phrases_are_counted_by_the_word_that_differs():
    rows = confusion(
        Inspection(
            "m",
            "",
            (
                image(true(1, 0.5, text="a red car"), absent(0.9, "a blue car"), absent(1, "x")),
                image(true(1, 0.5, text="the red box"), absent(0.1, "the blue box")),
            ),
        )
    )
    assert rows == [{"true": "red", "absent": "blue", "asked": 2, "confused": 1}]


def many(seed, better=0.0):
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(0).random(60)  # images are equally hard for both models
    return table(
        *(image(true(float(np.clip(h + better + rng.normal(0, 0.02), 0, 1)))) for h in hard)
    )


def test_paired_intervals_see_what_single_ones_cannot():
    first, second, difference = intervals([many(1), many(2, better=0.05)], draws=300)["mean_iou"]
    assert first[0] < second[0] < first[1]  # the intervals overlap
    assert difference[0] > 0


def test_a_model_does_not_differ_from_itself():
    assert intervals([many(1), many(1)], draws=50)["mean_iou"][2] == (0.0, 0.0)


def test_the_same_seed_gives_the_same_intervals():
    assert intervals([many(1)], draws=20) == intervals([many(1)], draws=20)
