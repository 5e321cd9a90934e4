"""Every image and video of the bad-input catalogue gets its outcome, in bounded time and memory."""

import dataclasses
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from tests import bad_inputs
from tests.bad_inputs import ACCEPT, EITHER, REFUSE
from x2vlm.errors import MediaError
from x2vlm.media import MediaLimits, open_image, open_media, open_video, worker

LIMITS = {"4k-60-seconds": dataclasses.replace(MediaLimits(), decode_seconds=1.0)}
BOMBS = {case.id for case in [*bad_inputs._image_bombs(), *bad_inputs._video_bombs()]}
SENTENCE = re.compile(r".{20,300} \[(image|video|job)/[a-z]+\]")


@pytest.fixture(scope="module")
def listener():
    """A socket that nothing may ever connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


def check_message(text: str, folder: Path) -> None:
    assert len(text) <= 300
    assert SENTENCE.fullmatch(text), text
    for forbidden in (
        str(folder),
        "0x",
        "Traceback",
        "PIL",
        "av.error",
        "FFmpeg",
        "<_io",
        "\n",
        "\x1b",
        "\u202e",
    ):
        assert forbidden not in text, text


def check(case: bad_inputs.Case, open_it, folder: Path) -> None:
    path = case.write(folder)
    if case.id in BOMBS:
        worker.pool.close()  # a fresh child, whose peak of memory is this file's alone
    start = time.monotonic()
    try:
        opened = open_it(path, limits=LIMITS.get(case.id, MediaLimits()))
    except MediaError as error:
        assert case.expect != ACCEPT, str(error)
        assert error.code.startswith(case.code)
        check_message(str(error), folder)
    else:
        assert case.expect != REFUSE, opened.notes
        if case.check:
            case.check(opened)
        for note in opened.notes:
            check_message(note, folder)
    assert time.monotonic() - start < 22
    if case.id in BOMBS and sys.platform == "linux" and worker.pool._idle:
        status = Path(f"/proc/{worker.pool._idle[-1].process.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
        assert peak < (350 if open_it is open_image else 600)


@pytest.mark.parametrize("case", bad_inputs.image_cases(), ids=lambda case: case.id)
def test_image(case, tmp_path):
    check(case, open_image, tmp_path)


@pytest.mark.parametrize("case", bad_inputs.video_cases(), ids=lambda case: case.id)
def test_video(case, tmp_path):
    check(case, open_video, tmp_path)


@pytest.mark.parametrize("case", list(bad_inputs._lists("", "")), ids=lambda case: case.id)
@pytest.mark.parametrize("open_it", [open_video, open_media])
def test_lists_open_nothing_else(case, open_it, tmp_path, listener):
    address = "{}:{}".format(*listener.getsockname())
    (tmp_path / "other.mp4").write_bytes(bad_inputs.video(5))
    case = next(c for c in bad_inputs._lists(address, "other.mp4") if c.id == case.id)
    with pytest.raises(MediaError) as caught:
        open_it(case.write(tmp_path))
    assert caught.value.code.endswith("/format")


def test_the_catalogue_has_all_kinds_of_outcome():
    cases = [*bad_inputs.image_cases(), *bad_inputs.video_cases()]
    assert len({(case.id, case.name) for case in cases}) == len(cases)
    assert {case.expect for case in cases} == {ACCEPT, REFUSE, EITHER}
    assert all(case.code for case in cases if case.expect == REFUSE)
    assert all(case.check for case in cases if case.expect == ACCEPT)
