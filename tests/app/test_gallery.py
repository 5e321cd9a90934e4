"""The failures that About shows are those of the cards."""

from __future__ import annotations

import pytest

from app.gallery import failures, gallery
from app.html import plain
from x2vlm.hub import BUNDLED


@pytest.mark.parametrize("model", BUNDLED)
def test_a_bundled_model_shows_its_failures(model):
    found = failures(model)
    assert len(found) == 8 and all(one.image.is_file() for one in found)
    text = plain(gallery(model))
    assert all(one.said.split('"')[1] in text and one.truth in text for one in found)


def test_a_model_without_a_card_shows_none():
    assert gallery("no such model") == ""
