"""A page over the stub model, in memory and served, with an image and a video to put on its
stage."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from app import build_demo
from app.arrivals import Arrivals
from app.examples import build, load_examples
from app.handlers import Handlers
from app.service.models import Models
from app.service.runner import Runner
from app.service.server import start
from app.state import MediaRef
from app.view import Look, Shown
from tests.app.stub import StubPredictor
from x2vlm.media import write_video


@pytest.fixture(scope="session", autouse=True)
def upload_folder(tmp_path_factory):
    """Gradio's upload folder, apart from everybody else's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder


@pytest.fixture
def predictor() -> StubPredictor:
    return StubPredictor()


@pytest.fixture
def runner(predictor) -> Runner:
    return Runner(Models(lambda name: predictor, ("stub",)), workers=1)


@pytest.fixture
def handlers(runner) -> Handlers:
    return Handlers(runner)


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("examples")
    build(StubPredictor(), folder)
    return load_examples(folder)


@pytest.fixture
def arrivals(runner, examples) -> Arrivals:
    return Arrivals(runner, examples)


@pytest.fixture
def visitor() -> SimpleNamespace:
    return SimpleNamespace(session_hash="visitor", query_params={})


@pytest.fixture(scope="session")
def picture_file(upload_folder):
    """An image of 300 x 200 in the upload folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    path = upload_folder / "picture.png"
    Image.fromarray(pixels).resize((300, 200), Image.Resampling.NEAREST).save(path)
    return path


TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@pytest.fixture(scope="session")
def phone_photos(upload_folder):
    """An image of 200 x 300 by EXIF orientation: upright in 1, stored turned in the others, as
    phones do."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    upright = Image.fromarray(pixels).resize((200, 300), Image.Resampling.NEAREST)
    photos = {}
    for orientation in (1, *TURNS):
        exif = Image.Exif()
        exif[0x0112] = orientation
        photos[orientation] = upload_folder / f"phone{orientation}.png"
        stored = upright.transpose(TURNS[orientation]) if orientation in TURNS else upright
        stored.save(photos[orientation], exif=exif)
    return photos


@pytest.fixture(scope="session")
def clip_file(upload_folder):
    """A video of 8 frames, 160 x 120, at 4 frames per second."""
    frames = [Image.new("RGB", (160, 120), (30 * k, 255 - 30 * k, 128)) for k in range(8)]
    return write_video(frames, 4.0, upload_folder / "clip.mp4")


@pytest.fixture
def shown(runner, picture_file) -> Shown:
    media = MediaRef(str(picture_file))
    return Shown(media, runner.preview(media, None, "visitor"))


@pytest.fixture
def clip_shown(runner, clip_file) -> Shown:
    media = MediaRef(str(clip_file))
    return Shown(media, runner.preview(media, None, "visitor"))


@pytest.fixture
def look() -> Look:
    return Look()


@pytest.fixture(scope="session")
def served(examples):
    """The app in this process: address, blocks and the stub behind it."""
    stub = StubPredictor()
    demo = build_demo(lambda name: stub, ("stub",), stored=examples, workers=1)
    address = start(demo, quiet=True)
    yield SimpleNamespace(address=address, demo=demo, stub=stub)
    demo.close(verbose=False)
