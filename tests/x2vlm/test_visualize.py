"""Drawing: true places, flat maps, lossless, numbers and dashes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from x2vlm.errors import ParameterError
from x2vlm.results import Grounding
from x2vlm.visualize import (
    PALETTE,
    annotate_frames,
    colorbar,
    contact_sheet,
    draw_boxes,
    draw_groundings,
    heat_range,
    is_flat,
    overlay_heatmap,
)


@pytest.fixture
def grey():
    return Image.new("RGB", (200, 160), (120, 120, 120))


def color_share(image, color):
    return (np.asarray(image) == ImageColor.getrgb(color)).all(-1)


def test_box_lines_lie_on_the_box_and_the_original_is_untouched(grey):
    drawn = draw_boxes(grey, [(40, 60, 120, 140)])
    assert draw_boxes(grey, [(120, 140, 40, 60)]) == drawn
    ys, xs = np.nonzero(color_share(drawn, PALETTE[0]))
    assert abs(xs.max() - 120) <= 1 and abs(ys.max() - 140) <= 1 and abs(xs.min() - 40) <= 1
    assert (
        color_share(drawn, PALETTE[0])[100, 40:43].any()
        and not color_share(drawn, PALETTE[0])[100, 60:100].any()
    )
    assert np.asarray(grey).std() == 0


def test_dashed_has_gaps_and_numbers_pick_colours(grey):
    solid = color_share(draw_boxes(grey, [(20, 40, 180, 150)], numbers=[3]), PALETTE[2])[
        :, 178:182
    ].any(1)
    dashed = color_share(
        draw_boxes(grey, [(20, 40, 180, 150)], dashed=[True], numbers=[3]), PALETTE[2]
    )[:, 178:182].any(1)
    assert solid[60:140].all() and dashed[60:140].any() and not dashed[60:140].all()


def test_badge_differs_by_number_and_stays_inside(grey):
    one, two = (
        np.asarray(draw_boxes(grey, [(-5, -5, 300, 300)], ["ok"], numbers=[n], colors=["#56B4E9"]))
        for n in (1, 2)
    )
    assert (one != two).any() and one.shape == (160, 200, 3)
    draw_boxes(grey, [(10, 10, 10, 10)], ["x" * 5_000 + "\n\x1b[31m"])


def test_draw_groundings_dashes_the_absent(grey):
    box = (20.0, 40.0, 180.0, 150.0)
    absent, found = (
        Grounding("a cat", box, (0.5, 0.5, 0.5, 0.5), 0.1, verdict)
        for verdict in ("absent", "found")
    )
    counts = [
        color_share(draw_groundings(grey, [g], show_labels=False), PALETTE[0]).sum()
        for g in (absent, found)
    ]
    assert 0 < counts[0] < counts[1]
    frames = annotate_frames([grey, grey], [[absent], [found]])
    assert [np.asarray(f).tobytes() for f in frames] == [
        np.asarray(draw_groundings(grey, [g])).tobytes() for g in (absent, found)
    ]


def test_heat_is_where_the_map_is_hot(grey):
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    drawn = np.asarray(overlay_heatmap(grey, heat, opacity=1.0, smooth=False))
    assert (drawn[:40, 150:] == drawn[0, 199]).all()
    assert (drawn[40:] == drawn[159, 0]).all() and (drawn[0, 199] != drawn[159, 0]).any()
    peak = np.asarray(overlay_heatmap(grey, heat, opacity=1.0))[..., 1].astype(int)
    assert np.unravel_index(peak.argmax(), peak.shape)[0] < 40


def test_flat_maps_stay_flat(grey):
    for flat in (
        np.zeros((4, 4)),
        np.full((4, 4), 0.7),
        0.3 + 1e-8 * np.random.default_rng(0).random((4, 4)),
    ):
        drawn = np.asarray(overlay_heatmap(grey, flat))
        assert np.ptp(drawn.reshape(-1, 3), axis=0).max() <= 1
    assert is_flat(np.zeros((4, 4))) and is_flat(np.full((4, 4), 5.0)) and not is_flat(np.eye(4))


def test_shared_range_keeps_a_weak_map_weak(grey):
    strong = np.eye(4)
    weak = strong * 0.1
    alone = np.asarray(overlay_heatmap(grey, weak, 1.0))
    shared = np.asarray(
        overlay_heatmap(grey, weak, 1.0, value_range=heat_range(np.stack([strong, weak])))
    )
    assert alone[..., 1].max() > shared[..., 1].max() + 50


def test_threshold_leaves_the_image(grey):
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    drawn = np.asarray(overlay_heatmap(grey, heat, threshold=0.5))
    assert (drawn[100:, 100:] == 120).all() and (drawn[5, 5] != 120).any()
    assert (np.asarray(overlay_heatmap(grey, heat, opacity=0.0)) == 120).all()


def test_heat_fades_in_above_the_threshold(grey):
    """Never stronger than asked for, stronger with heat, and no edge where it begins."""
    ramp = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (160, 1))
    colors = np.asarray(overlay_heatmap(grey, ramp, opacity=1.0)).astype(float)
    drawn = np.asarray(overlay_heatmap(grey, ramp, opacity=0.8, threshold=0.2)).astype(float)
    strength = (np.abs(drawn - 120).sum(-1) / np.abs(colors - 120).sum(-1))[80]
    assert strength[:38].max() == 0
    assert strength[-1] == pytest.approx(0.8, abs=0.02) and strength.max() < 0.82
    assert (np.diff(strength) > -0.03).all() and 0 < np.diff(strength).max() < 0.1


@pytest.mark.parametrize(
    "change",
    [{"opacity": 1.5}, {"threshold": -1}, {"opacity": float("nan")}, {"colormap": "no such"}],
)
def test_bad_parameters_are_refused(grey, change):
    with pytest.raises(ParameterError, match="param/range"):
        overlay_heatmap(grey, np.eye(4), **change)
    with pytest.raises(ParameterError, match="param/range"):
        overlay_heatmap(grey, np.full((4, 4), np.nan))


def test_png_is_lossless(grey):
    drawn = overlay_heatmap(grey, np.eye(4))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    assert np.array_equal(np.asarray(Image.open(buffer)), np.asarray(drawn))


def test_colorbar_shows_range_and_flatness():
    bar, flat = np.asarray(colorbar((0.0, 0.5))), np.asarray(colorbar((0.2, 0.2)))
    assert bar.shape == flat.shape == (48, 320, 3)
    assert (bar[0, 0] != bar[0, -1]).any() and (flat[:24] == flat[0, 0]).all()
    assert (bar[24:] < 100).any() and (flat[24:] < 100).any()


def test_contact_sheet_places_every_image(grey):
    reds = [Image.new("RGB", size, (255, 0, 0)) for size in ((100, 50), (50, 100), (30, 30))]
    sheet = contact_sheet(reds, ["a", "b " * 100, "c"], columns=2, tile=100)
    red = (np.asarray(sheet) == (255, 0, 0)).all(-1)
    assert red.sum() == 100 * 50 + 50 * 100 + 100 * 100
    with pytest.raises(ParameterError):
        contact_sheet([], [])
    with pytest.raises(ParameterError):
        contact_sheet(reds, ["a"])


def test_images_are_drawn_as_they_are_seen():
    """A photo that its EXIF turns, and one with a clear background."""
    turned = Image.new("RGB", (40, 20), "white")
    turned.getexif()[0x0112] = 6
    clear = Image.new("RGBA", (20, 40), (0, 0, 0, 0))
    for image in (turned, clear):
        drawn = draw_boxes(image, [(4, 4, 12, 30)])
        assert drawn.size == (20, 40)
        assert drawn.getpixel((18, 38)) == (255, 255, 255)
        heat = overlay_heatmap(image, np.eye(4, dtype=np.float32), opacity=0.0)
        assert heat.size == (20, 40)
        assert heat.getpixel((18, 38)) == (255, 255, 255)


def test_badges_of_one_corner_do_not_cover_each_other(grey):
    """Of boxes in one place the last hides the outlines of the others, and no badge."""

    def plates(count: int) -> list[int]:
        colors = [(255, 255, 1 + k) for k in range(count)]
        named = ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]
        pixels = np.asarray(draw_boxes(grey, [(60, 60, 120, 120)] * count, colors=named))
        return [int((pixels == color).all(axis=2).sum()) for color in colors]

    shown = plates(5)
    assert min(shown[:4]) > 50
    assert max(shown[:4]) < 2 * min(shown[:4])
