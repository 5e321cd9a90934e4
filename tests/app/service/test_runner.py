"""Admission, stop flags, the list of models, what is kept, and the clean_up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio.state_holder import StateHolder

from app import build_demo, limits
from app.service import server
from app.service.admission import uploaded
from app.service.events import as_job
from app.service.models import Models
from app.service.queue import Busy, JobQueue
from app.service.runner import Runner
from app.service.server import clean_up, delete_old_files
from app.state import MediaRef
from tests.app.stub import StubPredictor
from x2vlm.errors import Cancelled, CheckpointError, MediaError
from x2vlm.media import open_media


def test_never_more_at_work_than_workers(picture_file):
    stub = StubPredictor(delay=0.02)
    runner = Runner(Models(lambda name: stub, ("stub",)), workers=2)
    media = MediaRef(str(picture_file))
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda k: runner.run("match", media, None, f"v{k}", [f"text {k}"]), range(24))
        )
    assert stub.most_at_once <= 2
    assert [match[0].text for match in found] == [f"text {k}" for k in range(24)]


def test_cancel_stops_waiting_and_running_jobs_of_one_visitor():
    jobs = JobQueue(1)
    inside, leave, outcomes = threading.Event(), threading.Event(), {}

    def work(visitor: str) -> None:
        try:
            with jobs.job(visitor) as flag, jobs.worker(flag):
                inside.set()
                leave.wait(5)
                outcomes[visitor] = flag.is_set()
        except Cancelled:
            outcomes[visitor] = "never began"

    threads = [threading.Thread(target=work, args=(visitor,)) for visitor in ("a", "b", "c")]
    threads[0].start()
    assert inside.wait(5)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.1)
    jobs.cancel("a")
    jobs.cancel("b")
    jobs.cancel("nobody")
    leave.set()
    for thread in threads:
        thread.join(5)
    assert outcomes == {"a": True, "b": "never began", "c": False}
    assert jobs._flags == {}


def test_cancelled_job_frees_its_slot_and_the_next_one_runs(picture_file):
    runner = Runner(Models(lambda name: StubPredictor(), ("stub",)))
    with pytest.raises(ZeroDivisionError), runner.jobs.job("a") as flag, runner.jobs.worker(flag):
        raise ZeroDivisionError
    assert runner.preview(MediaRef(str(picture_file)), None, "a").size == (300, 200)


def test_busy_is_said(monkeypatch):
    monkeypatch.setattr(limits, "WAIT_SECONDS", 0.05)
    jobs, flag = JobQueue(1), threading.Event()
    with jobs.worker(flag), pytest.raises(Busy) as refusal, jobs.worker(flag):
        pass
    assert refusal.value.code == "busy/queue"


def test_a_call_that_takes_too_long_is_stopped_and_frees_its_worker(monkeypatch):
    jobs, flag = JobQueue(1), threading.Event()
    with pytest.raises(Cancelled), jobs.worker(flag):
        raise Cancelled("Stopped.", "job/cancelled")  # by its visitor
    monkeypatch.setattr(limits, "MODEL_SECONDS", 0.05)
    with pytest.raises(Busy) as refusal, jobs.worker(flag):
        assert flag.wait(20)
        raise Cancelled("Stopped.", "job/cancelled")
    assert refusal.value.code == "job/timeout"
    with jobs.worker(threading.Event()):
        pass


def test_a_job_that_waited_too_long_is_not_begun():
    jobs = JobQueue(1)
    with jobs.event(limits.WAIT_SECONDS - 1):
        assert jobs.busy == 1
    with pytest.raises(Busy) as refusal, jobs.event(limits.WAIT_SECONDS + 1):
        pass
    assert refusal.value.code == "busy/queue" and jobs.busy == 0


def test_nobody_waits_while_a_file_is_decoded(picture_file, clip_file, monkeypatch):
    """A slow video holds no worker: another visitor is answered meanwhile."""
    decoding, decoded = threading.Event(), threading.Event()

    def slow(path, *args, **options):
        if path == str(clip_file):
            decoding.set()
            assert decoded.wait(20)
        return open_media(path, *args, **options)

    monkeypatch.setattr("app.service.runner.open_media", slow)
    runner = Runner(Models(lambda name: StubPredictor(), ("stub",)), workers=1)
    with ThreadPoolExecutor(1) as pool:
        clip = pool.submit(runner.run, "match", MediaRef(str(clip_file)), None, "a", ["a"])
        assert decoding.wait(20)
        assert runner.run("match", MediaRef(str(picture_file)), None, "b", ["b"])[0].text == "b"
        assert not clip.done()
        decoded.set()
        assert clip.result(20)[0].text == "a"


def test_stages_of_work_are_told_in_order(runner, picture_file, clip_file, monkeypatch):
    told = []
    monkeypatch.setattr(
        "app.service.events.PROGRESS", lambda share, desc: told.append((share, desc))
    )
    for path in (picture_file, clip_file, clip_file):
        runner.run("caption", MediaRef(str(path)), None, "v")
    assert [stage for _, stage in told] == 2 * ["Reading the file", "Looking", "Writing"] + [
        "Writing"
    ]
    assert [share for share, _ in told[:3]] == sorted(share for share, _ in told[:3])


def test_drain_waits_for_what_runs_and_refuses_the_rest():
    jobs = JobQueue(1)
    inside, finished = threading.Event(), []

    def work() -> None:
        with jobs.event():
            inside.set()
            time.sleep(0.2)
            finished.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(5)
    assert jobs.drain(5, quiet=0.05) and finished
    with pytest.raises(Busy) as refusal, jobs.event():
        pass
    assert refusal.value.code == "busy/draining"
    thread.join()


def test_drain_gives_up_in_time():
    jobs = JobQueue(1)
    with jobs.event():
        assert not jobs.drain(0.1, quiet=0.05)


def test_a_cancelled_event_stops_its_thread():
    """Gradio lets go of a cancelled event; what still waits for a worker on its behalf never
    begins."""
    jobs, began, outcomes = JobQueue(1), threading.Event(), []

    def handler():
        with jobs.job("a") as flag:
            began.set()
            try:
                with jobs.worker(flag):
                    outcomes.append("begun")
            except Cancelled:
                outcomes.append("stopped")

    async def leave() -> None:
        with jobs.worker(threading.Event()):
            event = asyncio.ensure_future(as_job(jobs, handler)())
            while not began.is_set():
                await asyncio.sleep(0.01)
            event.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await event
            while not outcomes:  # its thread ends while the worker is still taken
                await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert outcomes == ["stopped"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../weights", "https://example.org/model", "someone/else", "mini "]
)
def test_public_host_offers_only_its_list(name):
    loaded = []
    models = Models(lambda name: loaded.append(name) or StubPredictor(), ("mini", "other"))
    with pytest.raises(CheckpointError) as refusal:
        models[name]
    assert refusal.value.code == "ckpt/source" and loaded == []
    assert models[None] is models["mini"] and loaded == ["mini"]


def test_own_machine_may_load_any_model_but_keeps_the_default_and_one_more():
    loaded = []
    models = Models(
        lambda name: loaded.append(name) or StubPredictor(), ("mini",), open_choice=True
    )
    for name in ("mini", "/a", "/b", "mini", "/b", "/a"):
        models[name]
    assert loaded == ["mini", "/a", "/b", "/a"] and models.ready


def test_nobody_waits_for_a_model_that_others_asked_for():
    loading, loaded, begun = threading.Event(), threading.Event(), []

    def load(name: str) -> StubPredictor:
        begun.append(name)
        if name == "slow":
            loading.set()
            assert loaded.wait(20)
        return StubPredictor()

    models = Models(load, ("mini", "slow", "other"))
    mini = models["mini"]
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(models.__getitem__, "slow") for _ in range(2)]
        assert loading.wait(20)
        assert pool.submit(models.__getitem__, "mini").result(10) is mini
        assert pool.submit(models.__getitem__, "other").result(10) is not mini
        assert not any(asked.done() for asked in slow)
        loaded.set()
        assert slow[0].result(20) is slow[1].result(20)
    assert begun == ["mini", "slow", "other"]


def test_only_a_few_scenes_are_kept_and_each_is_encoded_once(upload_folder, picture_file):
    stub = StubPredictor()
    runner = Runner(Models(lambda name: stub, ("stub",)))
    for k in range(limits.SCENES + 3):
        path = upload_folder / f"copy{k}.png"
        path.write_bytes(picture_file.read_bytes())
        for _ in range(2):
            runner.run("match", MediaRef(str(path)), None, "v", ["a"])
    assert len(runner._scenes) == limits.SCENES
    assert stub.calls.count("encode") == limits.SCENES + 3


def test_file_that_is_gone_is_asked_for_again(upload_folder):
    runner = Runner(Models(lambda name: StubPredictor(), ("stub",)))
    with pytest.raises(MediaError, match="Upload it again"):
        runner.preview(MediaRef(str(upload_folder / "gone.png")), None, "v")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../etc/passwd", "http://127.0.0.1/x.png", "file:///etc/passwd", "app.py"],
)
def test_only_uploads_are_opened(path):
    with pytest.raises(MediaError) as refusal:
        uploaded(path)
    assert refusal.value.code == "image/reference"


def test_link_out_of_the_upload_folder_is_not_followed(upload_folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    link = upload_folder / "link.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(MediaError):
        uploaded(str(link))
    link.unlink()


@pytest.fixture
def make(tmp_path):
    """Writes a file that looks changed at `when`, or at least as late as now."""

    def write(name: str, when: float, size: int = 10) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (when, when))
        return path

    return write


def test_clean_up_deletes_old_files_aborted_uploads_and_what_is_over_the_quota(
    tmp_path, make, monkeypatch
):
    later = time.time() + 4000
    old, aborted, fresh, kept = (
        make("hash/old.png", 0),
        make("tmpabcd", 0),
        make("hash2/fresh.png", later - 10),
        make("kept", 0),
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert delete_old_files(tmp_path, later, {str(kept)}) == 2
    assert (
        not old.exists()
        and not aborted.exists()
        and not empty.exists()
        and fresh.exists()
        and kept.exists()
    )
    monkeypatch.setattr(limits, "TEMP_GIGABYTES", 1000 / 2**30)
    first, second = make("a", later - 30, 900), make("b", later - 20, 900)
    delete_old_files(tmp_path, later)
    assert not first.exists() and second.exists()
    assert delete_old_files(tmp_path / "nothing", later) == 0


def test_a_copy_of_an_old_file_is_as_young_as_the_copy(tmp_path, make):
    copy = make("copy.png", 0)  # as `shutil.copy2` leaves it
    assert delete_old_files(tmp_path) == 0 and copy.exists()


@pytest.mark.parametrize("step", ["lstat", "unlink", "rmdir"])
def test_clean_up_goes_on_when_others_delete_too(tmp_path, make, monkeypatch, step):
    for name in ("a/1", "b/2", "c/3"):
        make(name, 0)
        (tmp_path / name[0] / "empty").mkdir()
    real, first = getattr(os, step), []

    def late(path):
        if not first:
            first.append(path)
            os.remove(path) if os.path.isfile(path) else os.removedirs(path)
        return real(path)

    monkeypatch.setattr(server.os, step, late)
    delete_old_files(tmp_path, time.time() + 4000)
    assert first and not [
        path for path in tmp_path.rglob("*") if path.is_file() or path.name == "empty"
    ]


def test_a_clean_up_that_fails_comes_again(monkeypatch):
    rounds = []

    def fail(demo):
        rounds.append(demo)
        raise RuntimeError if len(rounds) < 3 else SystemExit

    monkeypatch.setattr(server, "clean_up", fail)
    monkeypatch.setattr(server.time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit):
        server._clean_up_forever("demo")
    assert rounds == ["demo"] * 3


def test_clean_up_leaves_what_the_page_begins_with_and_forgets_what_was_made_of_old_files(
    tmp_path, examples, picture_file, monkeypatch
):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    stub = StubPredictor()
    demo = build_demo(lambda name: stub, ("stub",), stored=examples)
    sessions = StateHolder()
    sessions.set_blocks(demo)
    begins_with = {path for path in tmp_path.rglob("*") if path.is_file()}
    upload = tmp_path / "upload.png"
    upload.write_bytes(picture_file.read_bytes())
    demo.runner.preview(MediaRef(str(upload)), None, "visitor")
    assert sessions["visitor"]
    clean_up(demo)
    assert upload.exists() and len(demo.runner._scenes) == 1 and "visitor" in sessions
    monkeypatch.setattr(limits, "TEMP_SECONDS", -1)
    clean_up(demo)
    assert begins_with and {path for path in tmp_path.rglob("*") if path.is_file()} == begins_with
    assert not demo.runner._scenes and "visitor" not in sessions and not sessions.time_last_used
