"""The handlers over the real Predictor with a tiny random model: every contract between page and
model holds."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from app.api import Endpoints
from app.api_types import RESULTS
from app.service import models
from app.service.models import Models
from app.service.runner import Runner
from app.state import MediaRef, ViewState
from app.tab import Asker
from app.tabs import TABS
from app.tabs.ask import Ask
from app.tabs.inspect import Inspect
from x2vlm.cli import main
from x2vlm.errors import CheckpointError, MediaError, ParameterError

NO_REGION = (None, None, None, None)


@pytest.fixture(scope="module")
def real_runner(tiny_config, tiny_processor) -> Runner:
    torch = pytest.importorskip("torch")
    from x2vlm.inference.predictor import Predictor
    from x2vlm.modeling.build import build_model
    from x2vlm.settings import Settings

    torch.manual_seed(0)
    predictor = Predictor.from_model(
        build_model(tiny_config), tiny_processor, Settings(answers=("red", "blue", "two"))
    )
    return Runner(Models(lambda name: predictor, ("tiny",)))


@pytest.fixture(params=["picture_file", "clip_file"])
def ask(request, real_runner) -> Asker:
    media = MediaRef(str(request.getfixturevalue(request.param)))
    state = ViewState(media, real_runner.preview(media, None, "v"), tab="find")
    return Asker(real_runner, "v", state, "tiny")


TEXT = {"question": "what color is the car?", "phrases": "the red car\na dog"}
TEXT |= {"text": "a dog on the grass", "texts": "a dog\na red car"}


@pytest.mark.parametrize("region", [None, (10.0, 10.0, 100.0, 100.0)])
@pytest.mark.parametrize("make", [tab for tab in TABS if tab.asks])
def test_every_tab_works_with_the_real_predictor(ask, make, region):
    tab = make()
    ask.state = dataclasses.replace(ask.state, tab=tab.name, region=region)
    values = tab.defaults | {key: text for key, text in TEXT.items() if key in tab.defaults}
    state = ask.state.with_result(tab.name, tab.run(ask, values))
    assert state.to_dict()["results"]
    assert json.dumps(state.to_dict(), allow_nan=False)
    assert tab.render(state.result, state)


def test_a_question_that_names_nothing_is_answered_without_maps(ask):
    """Such as "what is it?", of which no phrase could be explained."""
    tab = Ask()
    result = tab.run(ask, tab.defaults | {"question": "what is it?"})
    assert result.found[0].answers and result.layers == ()
    assert tab.render(result, ask.state)


def test_the_slower_looks_work_with_the_real_predictor(ask):
    tab = Inspect()
    result = tab.run(ask, tab.defaults | {"text": "a red car"})
    ask.state = ask.state.with_result("inspect", result)
    tab.checked = "checked"
    assert "<svg" in tab.check_deletion(ask, tab.defaults)["checked"]


@pytest.mark.parametrize("task, texts", [("caption", ()), ("match", (["a dog"],))])
def test_a_collection_says_of_each_image_what_it_says_alone(
    real_runner, picture_file, phone_photos, upload_folder, task, texts
):
    broken = upload_folder / "broken-in-a-list.png"
    broken.write_bytes(b"no image")
    files = [str(picture_file), str(broken), str(phone_photos[6])]
    found = [one for _, one in real_runner.run_each(task, files, "tiny", "v", *texts)]
    assert isinstance(found[1], MediaError)
    for path, one in ((files[0], found[0]), (files[2], found[2])):
        alone = real_runner.run(task, MediaRef(path), "tiny", "v", *texts)
        assert [r.text for r in one] == [r.text for r in alone]
        if task == "match":
            assert one[0].probability == pytest.approx(alone[0].probability, abs=1e-4)


@pytest.mark.parametrize(
    "endpoint, given",
    [
        ("caption", {"region": [10, 10, 100, 100], "max_new_tokens": 3}),
        ("caption", {"prefix": "a", "min_length": 2, "max_new_tokens": 4}),
        ("ask", {"question": "what?", "region": [10, 10, 100, 100], "top_k": 2}),
        ("match", {"texts": ["a dog"], "region": [10, 10, 100, 100]}),
        ("explain", {"text": "a dog", "target": "match", "layer": "mean", "head": "max"}),
        ("explain", {"text": "what color is the car?", "target": "answer", "answer": "red"}),
        ("faithfulness", {"text": "a dog", "mode": "insertion", "fill": "mean"}),
    ],
)
def test_endpoints_work_with_the_real_predictor(real_runner, picture_file, endpoint, given):
    found = getattr(Endpoints(real_runner), endpoint)({"path": str(picture_file)}, **given)
    assert set(found) == set(RESULTS[endpoint].__annotations__)
    assert json.dumps(found, allow_nan=False)


def test_phone_photos_through_the_command_line(tiny_folder, phone_photos, capsys):
    found = []
    for path in phone_photos.values():
        assert (
            main(["ground", str(path), "a red car", "a dog", "--json", "--model", str(tiny_folder)])
            == 0
        )
        found.append(json.loads(capsys.readouterr().out)["groundings"])
    assert found == found[:1] * 4


def test_the_health_check_is_answered(real_runner):
    assert real_runner.models["tiny"] and real_runner.trouble() == ""


class NoTensors(pickle.Pickler):
    """Refuses tensors: on ZeroGPU, arguments and results cross to another process, which a CUDA
    tensor cannot do."""

    def reducer_override(self, value):
        import torch

        assert not isinstance(value, torch.Tensor)
        return NotImplemented


def sent(value: Any) -> Any:
    stream = io.BytesIO()
    NoTensors(stream).dump(value)
    return pickle.loads(stream.getvalue())


def test_on_zero_gpu_only_plain_values_cross_the_decorator(
    real_runner, picture_file, clip_file, monkeypatch
):
    crossed, loaded = [], []

    def gpu(work):
        assert not inspect.iscoroutinefunction(work)

        def elsewhere(*args):
            crossed.append(args[0])
            try:
                return sent(work(*sent(args)))
            except Exception as error:  # nothing else of it crosses
                raise gr.Error(type(error).__name__) from None

        return elsewhere

    monkeypatch.setattr(models, "spaces", SimpleNamespace(GPU=gpu))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")

    def load(name):
        assert threading.current_thread() is threading.main_thread()  # elsewhere there is no CUDA
        loaded.append(name)
        return real_runner.models["tiny"]

    offered = Models(load, ("tiny", "other"), open_choice=True)
    assert offered.ready and offered.names == ("tiny",)
    runner = Runner(offered)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(zero_gpu_visit, runner, (picture_file, clip_file)).result()
    assert crossed == [
        *2 * ["preview", "explain", "ground", "caption", "answer_region", "deletion_check"],
        "explain",
    ]
    assert loaded == ["tiny"]
    monkeypatch.undo()
    assert Runner(real_runner.models)._work.__name__ == "_call"


def zero_gpu_visit(runner, files):
    for path in files:
        media = MediaRef(str(path))
        assert runner.preview(media, None, "v").frames
        explanation = runner.run("explain", media, None, "v", "a red car")
        assert isinstance(explanation.maps, np.ndarray)
        runner.run("ground", media, None, "v", ["a dog"], explain=True)
        runner.run("caption", media, None, "v", max_new_tokens=3)
        runner.run("answer_region", media, None, "v", (10, 10, 100, 100), "what color is it?")
        runner.run("deletion_check", media, None, "v", explanation, steps=2, draws=1)
    with pytest.raises(ParameterError) as refusal:
        runner.run("explain", media, None, "v", "a red car", layer=99)
    assert refusal.value.code == "param/range" and refusal.value.message.startswith("layer must be")
    with pytest.raises(CheckpointError):
        runner.run("preview", media, "other", "v")
