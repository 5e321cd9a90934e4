"""The child process: killed, hung, cancelled, out of memory, shared by threads; the next call
always works."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.bad_inputs import encoded, number_of, photo, quadrants, upright, video
from x2vlm.errors import Cancelled, MediaError
from x2vlm.media import MediaLimits, open_image, open_video, worker

IMAGE = encoded(quadrants(), "PNG")
posix = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def pool(monkeypatch):
    """A pool of one child, already at work once."""
    pool = worker.Pool(1)
    monkeypatch.setattr(worker, "pool", pool)
    upright(open_image(IMAGE))
    yield pool
    pool.close()


def child(pool: worker.Pool) -> int:
    return pool._idle[-1].process.pid


@posix
def test_a_killed_child_is_an_error_and_the_next_call_works(pool):
    first = child(pool)
    os.kill(first, signal.SIGSTOP)  # so that the job is surely under way when it is killed
    threading.Timer(0.2, os.kill, (first, signal.SIGKILL)).start()
    with pytest.raises(MediaError) as caught:
        open_image(IMAGE)
    assert caught.value.code == "job/crashed"
    upright(open_image(IMAGE))
    assert child(pool) != first


@posix
def test_a_child_that_died_idle_is_replaced_silently(pool):
    os.kill(child(pool), signal.SIGKILL)
    pool._idle[-1].process.wait()
    upright(open_image(IMAGE))


@posix
def test_a_hung_child_is_killed_at_the_deadline(pool, monkeypatch):
    monkeypatch.setattr(worker, "GRACE_SECONDS", 0.1)
    os.kill(child(pool), signal.SIGSTOP)
    with pytest.raises(MediaError) as caught:
        open_image(IMAGE, MediaLimits(decode_seconds=0.2))
    assert caught.value.code == "image/timeout"
    assert "0.2 s" in str(caught.value)
    upright(open_image(IMAGE))


@posix
@pytest.mark.parametrize("wait", [0.0, 0.2])
def test_cancel_stops_the_job(pool, wait):
    os.kill(child(pool), signal.SIGSTOP)
    cancel = threading.Event()
    threading.Timer(wait, cancel.set).start()
    with pytest.raises(Cancelled) as caught:
        open_image(IMAGE, cancel=cancel)
    assert caught.value.code == "job/cancelled"
    upright(open_image(IMAGE, cancel=threading.Event()))


@posix
def test_cancel_frees_one_who_waits_for_a_slot(pool):
    os.kill(child(pool), signal.SIGSTOP)
    busy, waiting = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(open_image, IMAGE, cancel=busy)
        while pool._slots._value:
            pass
        second = threads.submit(open_image, IMAGE, cancel=waiting)
        waiting.set()
        with pytest.raises(Cancelled):
            second.result(timeout=30)
        assert not first.done()
        busy.set()
        with pytest.raises(Cancelled):
            first.result(timeout=30)


def test_an_interrupted_job_leaves_no_half_message(pool, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(worker, "receive", interrupted)
        open_image(IMAGE)
    upright(open_image(IMAGE))


@posix
@pytest.mark.parametrize("mib", [40, 80, 120])
def test_memory_is_limited(pool, mib):
    with pytest.raises(MediaError) as caught:
        open_image(encoded(photo(6000, 4000), "JPEG"), MediaLimits(memory_bytes=mib * 2**20))
    assert caught.value.code == "image/memory"
    upright(open_image(IMAGE))


def test_a_child_is_replaced_after_its_share_of_jobs(pool, monkeypatch):
    monkeypatch.setattr(worker, "JOBS_PER_WORKER", 4)
    pids = []
    for _ in range(8):
        pids.append(child(pool))
        upright(open_image(IMAGE))
    assert len(set(pids)) == 3


def test_threads_get_their_own_answers():
    images = [photo(40 + i, 30) for i in range(6)]
    files = [encoded(image, "PNG") for image in images]
    film = video(40)

    def job(i: int) -> bool:
        if i % 3 == 0:
            opened = open_video(film, indices=[i % 40])
            return number_of(opened.frames[0]) == i % 40
        if i % 3 == 1:
            with pytest.raises(MediaError, match=rf"^{i}\.png: "):
                open_image(files[0][:100], name=f"{i}.png")
            return True
        return np.array_equal(
            np.asarray(open_image(files[i % 6]).pixels), np.asarray(images[i % 6])
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(job, range(60)))
    assert len(worker.pool._idle) <= worker.WORKERS


@linux
def test_the_child_is_light_and_confined(monkeypatch):
    monkeypatch.setenv("X2VLM_TEST_SECRET", "canary")
    monkeypatch.setattr(worker, "pool", worker.Pool(1))
    open_video(video(3))
    process = Path(f"/proc/{child(worker.pool)}")
    assert b"canary" not in (process / "environ").read_bytes()
    assert "libtorch" not in (process / "maps").read_text()
    limits = {
        line[:26].strip(): line[26:].split()[:2]
        for line in (process / "limits").read_text().splitlines()
    }
    soft, hard = map(int, limits["Max address space"])
    assert MediaLimits().memory_bytes < soft == hard < 2 * MediaLimits().memory_bytes
    assert limits["Max file size"] == limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == ["64", "64"]
    assert "NoNewPrivs:\t1" in (process / "status").read_text()
    files = [os.readlink(entry) for entry in (process / "fd").iterdir()]
    assert not [file for file in files if not file.startswith(("pipe:", "/dev/null"))]
    worker.pool.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_starts_its_own_child(pool):
    before = child(pool)
    with multiprocessing.get_context("fork").Pool(1) as processes:
        size, theirs = processes.apply_async(_open_in_fork).get(timeout=60)
    assert size == (64, 48)
    assert theirs != before
    upright(open_image(IMAGE))
    assert child(pool) == before


def _open_in_fork() -> tuple[tuple[int, int], int]:
    return open_image(IMAGE).size, child(worker.pool)


def test_a_plain_script_without_a_main_guard_works(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(f"from x2vlm.media import open_image\nprint(open_image({IMAGE!r}).size)\n")
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=120
    )
    assert (done.stdout, done.stderr) == ("(64, 48)\n", "")


def test_a_reader_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(worker, "BOOT", "raise ImportError")
    monkeypatch.setattr(worker, "pool", worker.Pool(1))
    with pytest.raises(MediaError, match="could not be started") as caught:
        open_image(IMAGE)
    assert caught.value.code == "job/crashed"
    worker.pool.close()


def no_process(*_, **__):
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_without_room_for_a_process_it_is_an_error(monkeypatch):
    monkeypatch.setattr(worker, "pool", worker.Pool(1))
    with monkeypatch.context() as patch:
        patch.setattr(worker.subprocess, "Popen", no_process)
        with pytest.raises(MediaError, match="could not be started") as caught:
            open_image(IMAGE)
    assert caught.value.code == "job/crashed"
    upright(open_image(IMAGE))
    worker.pool.close()


def test_a_result_outlives_the_lack_of_a_spare_process(pool, monkeypatch):
    monkeypatch.setattr(worker, "JOBS_PER_WORKER", 2)
    with monkeypatch.context() as patch:
        patch.setattr(worker.subprocess, "Popen", no_process)
        upright(open_image(IMAGE))  # its child has served its time
    assert not pool._idle
    upright(open_image(IMAGE))


def test_importing_media_does_not_load_torch():
    code = "import sys, x2vlm.media; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120
    )
    assert done.stdout == "False\n", done.stderr
