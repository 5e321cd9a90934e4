"""Several workers: different visitors are answered at the same time, each as if alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app import build_demo
from app.service.models import Models
from app.service.runner import Runner
from app.service.server import start
from app.state import MediaRef
from tests.app.serving import call, uploaded
from tests.app.stub import StubPredictor
from x2vlm import Predictor

SECONDS = 60
WORKERS = 2


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Images in an upload folder of its own, which the app empties when it ends."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    made = [tmp_path / str(k) / "picture.png" for k in range(8)]
    for k, path in enumerate(made):
        path.parent.mkdir(parents=True)
        Image.effect_noise((90, 60), 20 + 9 * k).convert("RGB").save(path)
    return made


def test_as_many_visitors_as_workers_are_answered_at_once(pictures):
    together, stub = threading.Barrier(WORKERS, timeout=SECONDS), StubPredictor()
    demo = build_demo(lambda name: stub, ("stub",), stored={}, workers=WORKERS)
    address = start(demo, quiet=True)

    def ask(k: int):
        return call(address, "match", [uploaded(pictures[k]), [f"text {k}"]])

    try:
        alone = [ask(k) for k in range(8)]
        stub.most_at_once = 0
        stub.work = lambda text: together.wait()  # passed by two at a time, never by one
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == alone
        assert stub.most_at_once == WORKERS
    finally:
        together.abort()
        demo.close(verbose=False)


TASKS = {
    "caption": ((), {}),
    "answer": (("what is this?",), {}),
    "ground": ((["a red car", "a dog"],), {}),
    "explain": (("a dog on the grass",), {}),
    "match": ((["a red car", "a dog"],), {}),
}


def test_the_models_results_do_not_depend_on_what_else_is_at_work(pictures):
    mini = Predictor.from_pretrained("mini", device="cpu")
    jobs = [(task, path) for path in pictures[:4] for task in TASKS]

    def results(workers: int) -> list[str]:
        runner = Runner(Models(lambda name: mini, ("mini",)), workers=workers, threads=1)
        runner.models["mini"]

        def run(job: tuple) -> str:
            task, path = job
            args, options = TASKS[task]
            found = runner.run(task, MediaRef(str(path)), None, f"{task} {path}", *args, **options)
            return repr(found)

        with ThreadPoolExecutor(2 * workers) as pool:
            return list(pool.map(run, jobs))

    alone = results(1)
    assert len(set(alone)) > len(TASKS)
    assert results(WORKERS) == alone
