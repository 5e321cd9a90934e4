"""The index of a folder: built once, refreshed, and safe when its run is killed."""

import os

import numpy as np
import pytest

from x2vlm.collections.index import ITEMS, ImageIndex, similarities


@pytest.fixture
def folder(tmp_path, make_images):
    return make_images(tmp_path / "photos", 9)


def build(predictor, folder):
    return ImageIndex.of_folder(predictor, folder)


def encoded(predictor, folder):
    """How many images another build encodes."""
    totals = [0]
    ImageIndex.of_folder(predictor, folder, progress=lambda done, total: totals.append(total))
    return totals[-1]


def present(index):
    return {os.path.basename(path) for path in index.paths if path}


def test_an_index_is_built_once(tiny_predictor, folder):
    index = build(tiny_predictor, folder)
    assert len(present(index)) == 9 and isinstance(index.features, np.memmap)
    assert encoded(tiny_predictor, folder) == 0


def test_new_changed_and_removed_images_are_noticed(tiny_predictor, folder, make_images):
    build(tiny_predictor, folder)
    (folder / "003.png").unlink()
    (folder / "008.png").rename(folder / "new.png")
    make_images(folder, 1, seed=9)  # 000.png becomes another image
    assert encoded(tiny_predictor, folder) == 2
    index = build(tiny_predictor, folder)
    assert present(index) == {
        *(f"{i:03}.png" for i in (0, 1, 2, 4, 5, 6, 7)),
        "new.png",
    }
    row = index.paths.index(str(folder / "000.png"))
    np.testing.assert_allclose(
        index.features[row], tiny_predictor.image_features(str(folder / "000.png")), atol=1e-5
    )


@pytest.mark.parametrize("cut", [5, 200])
def test_a_killed_build_goes_on(tiny_predictor, folder, cut):
    whole = np.array(build(tiny_predictor, folder).features)
    items = folder / ".x2vlm" / ITEMS
    items.write_bytes(items.read_bytes()[:-cut])
    again = build(tiny_predictor, folder)
    np.testing.assert_allclose(again.features, whole, atol=1e-5)
    assert len(present(again)) == 9


def test_a_bad_image_is_left_out_and_named(tiny_predictor, folder):
    (folder / "004.png").write_bytes(b"no image")
    index = build(tiny_predictor, folder)
    assert list(index.failed) == ["004.png"] and len(present(index)) == 8


def test_the_index_of_another_model_is_begun_anew(tiny_predictor, folder):
    build(tiny_predictor, folder)
    about = folder / ".x2vlm" / "index.json"
    about.write_text(about.read_text().replace("tiny", "other"))
    assert encoded(tiny_predictor, folder) == 9


def test_cosines_are_the_same_a_part_at_a_time(monkeypatch):
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    whole = similarities(features, features[0])
    monkeypatch.setattr("x2vlm.collections.index.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(similarities(features, features[0]), whole, rtol=1e-4)
