"""Regions: crops, boxes, and their patches."""

import numpy as np
import pytest

from train.data.regions import box_in_crop, sample_crop
from x2vlm.processing import patch_mask


def test_crop_always_contains_the_box_and_varies():
    crops = {
        sample_crop((20, 30, 15, 10), 100, 80, np.random.default_rng(seed)) for seed in range(200)
    }
    assert all(
        x0 <= 20 and y0 <= 30 and x1 >= 35 and y1 >= 40 and x1 <= 100 and y1 <= 80
        for x0, y0, x1, y1 in crops
    )
    assert len(crops) > 150


def test_box_in_crop():
    assert box_in_crop((10, 10, 20, 20), (0, 0, 40, 40)) == (0.5, 0.5, 0.5, 0.5)
    assert box_in_crop((10, 10, 20, 20), (0, 0, 80, 40)) == (0.25, 0.5, 0.25, 0.5)
    assert box_in_crop((10, 10, 20, 20), (0, 0, 80, 40), flip=True) == (0.75, 0.5, 0.25, 0.5)
    assert (
        box_in_crop((10, 10, 20, 20), (20, 0, 40, 40)) is None
    )  # exactly half is not more than half
    assert box_in_crop((10, 10, 20, 20), (19, 0, 40, 40)) == pytest.approx(
        (5.5 / 21, 0.5, 11 / 21, 0.5)
    )
    assert box_in_crop((10, 10, 0, 20), (0, 0, 40, 40)) is None


def test_flipping_the_image_flips_its_patches():
    rng = np.random.default_rng(0)
    for _ in range(100):
        x, y, w, h = rng.uniform(0, 60), rng.uniform(0, 60), rng.uniform(1, 40), rng.uniform(1, 40)
        plain, flipped = (
            _patches(box_in_crop((x, y, w, h), (0, 0, 100, 100), flip=flip))
            for flip in (False, True)
        )
        assert (plain.flip(1) == flipped).all()


def _patches(box_cxcywh):
    cx, cy, w, h = box_cxcywh
    return patch_mask((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 8).reshape(8, 8)
