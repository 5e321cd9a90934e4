"""The handlers over the real Predictor with a tiny random model: every contract between page and model holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app import examples as app_examples
from app.handlers import Handlers
from app.runtime import Media, Models, Studio
from app.view import Shown

NO_REGION = (None, None, None, None)


@pytest.fixture(scope="module")
def real_studio(tiny_config, tiny_processor) -> Studio:
    torch = pytest.importorskip("torch")
    from x2vlm.build import build_model
    from x2vlm.predictor import Predictor
    from x2vlm.suite import Settings

    torch.manual_seed(0)
    predictor = Predictor.from_model(build_model(tiny_config), tiny_processor, Settings(answers=("red", "blue", "two")))
    return Studio(Models(lambda name: predictor, ("tiny",)))


@pytest.fixture(params=["picture_file", "clip_file"])
def on_stage(request, real_studio) -> Shown:
    media = Media(str(request.getfixturevalue(request.param)))
    return Shown(media, real_studio.look(media, None, "v"))


def test_every_tab_works_with_the_real_predictor(real_studio, on_stage, visitor, look):
    handlers = Handlers(real_studio)
    calls = {
        "describe": ("beam", 2, 2, 0, 8, 0.9, 1.0, 0, ""),
        "ask": ("what color is the car?", "auto", ""),
        "find": ("the red car\na dog", 0.3, 0.7, *NO_REGION),
        "inspect": ("a dog on the grass", "match", "1", "0", "gradient"),
        "match": ("a dog\na red car", ""),
        "describe_region": (10, 10, 100, 100),
        "ask_region": ("what color is it?", 10, 10, 100, 100),
        "rank_region": ("a dog\na car", 10, 10, 100, 100),
    }
    for name, arguments in calls.items():
        values = getattr(handlers, name)(visitor, on_stage, look, "tiny", *arguments)
        assert json.dumps(values[-1], allow_nan=False)
        assert values[-1]["results"], name
    kept = handlers.inspect(visitor, on_stage, look, "tiny", "a red car", "box", "default", "default", "gradient")[2]
    assert np.isfinite(kept.explanation.maps).all()
    assert "<svg" in handlers.deletion(visitor, kept, "tiny")
    assert handlers.compare(visitor, kept, look, "tiny", "a red car", "random")["value"]
    if on_stage.seen.kind == "video":
        assert "<svg" in handlers.over_time(visitor, on_stage, "tiny", "a red car")
        assert handlers.annotate(visitor, on_stage, "tiny", "a red car")["value"].endswith(".mp4")


def test_stored_results_of_the_real_predictor_survive(real_studio, tmp_path):
    predictor = real_studio.models["tiny"]
    app_examples.build(predictor, tmp_path)
    for example in app_examples.load_examples(tmp_path).values():
        assert set(example.results) == set(app_examples.RESULTS)
        fresh = predictor.explain(predictor.encode(str(example.path)), example.texts.text)
        np.testing.assert_allclose(example.results["explain"].maps, fresh.maps, rtol=1e-3, atol=1e-6)
