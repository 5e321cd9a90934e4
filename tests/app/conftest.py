"""A page over the stub model, in memory and served, with an image and a video to put on its
stage."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from app import build_demo
from app.examples import load_examples, rebuild
from app.service.models import Models
from app.service.runner import Runner
from app.service.server import start
from app.state import MediaRef, ViewState
from app.tab import Asker
from app.tabs import TABS
from app.uploads import Uploads
from tests.app.stub import StubPredictor
from x2vlm.media import write_video


@pytest.fixture(scope="session", autouse=True)
def upload_folder(tmp_path_factory):
    """Gradio's upload folder, apart from everybody else's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.getbasetemp() / "uploads"  # one, with the browser tests' own
        folder.mkdir(exist_ok=True)
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder


@pytest.fixture
def predictor() -> StubPredictor:
    return StubPredictor()


@pytest.fixture
def runner(predictor) -> Runner:
    return Runner(Models(lambda name: predictor, ("stub",)), workers=1)


def example_files(folder: Path, scene: Image.Image) -> None:
    """Two images and a video with texts, for the stub to answer."""
    texts = {"question": "what is it?", "phrases": "a red car\na unicorn", "text": "a small dog"}
    texts |= {"texts": "a dog\na cat", "questions": ["what is it?", "is there a dog?"]}
    kept = {"model": "stub", "texts": texts}
    for order, name in enumerate(("scene", "scene-2")):
        scene.save(folder / f"{name}.png")
        described = kept | {"media": f"{name}.png", "order": order}
        (folder / f"{name}.json").write_text(json.dumps(described))


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("examples")
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    example_files(folder, Image.fromarray(pixels).resize((448, 448), Image.Resampling.NEAREST))
    tabs = [tab() for tab in TABS]
    rebuild(lambda name: StubPredictor(), tabs, folder)
    return load_examples(tabs, folder)


@pytest.fixture
def uploads(runner, examples) -> Uploads:
    return Uploads(runner, examples, [tab() for tab in TABS])


@pytest.fixture
def ask(runner, state) -> Asker:
    """The stub asked about the image on the stage."""
    return Asker(runner, "visitor", state, "stub")


@pytest.fixture
def ask_video(runner, video_state) -> Asker:
    return Asker(runner, "visitor", video_state, "stub")


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
def state(runner, picture_file) -> ViewState:
    media = MediaRef(str(picture_file))
    return ViewState(media, runner.preview(media, None, "visitor"), tab="find")


@pytest.fixture
def video_state(runner, clip_file) -> ViewState:
    media = MediaRef(str(clip_file))
    return ViewState(media, runner.preview(media, None, "visitor"), tab="find")


@pytest.fixture(scope="session")
def served(examples):
    """The app in this process: address, blocks and the stub behind it."""
    stub = StubPredictor()
    demo = build_demo(
        lambda name: stub,
        ("stub", "other"),
        stored=examples,
        workers=1,
        weights=lambda name: stub.info.hash,
    )
    address = start(demo, quiet=True)
    yield SimpleNamespace(address=address, demo=demo, stub=stub)
    demo.close(verbose=False)
