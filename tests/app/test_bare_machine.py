"""`python app.py` on a bare machine: no GPU, no network, no other program such as ffmpeg, no
optional reader."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

from tests.app.serving import ROOT, call, free_port, uploaded

BARE = """
import os, runpy, sys

def bare(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1",
    "localhost", "::1"):
        print("REACHED OUT to", args[1], flush=True)
        raise OSError("no network")
    if event in ("subprocess.Popen", "os.posix_spawn") and args[0] != sys.executable:
        raise FileNotFoundError(args[0])

sys.addaudithook(bare)
sys.modules["spaces"] = None
sys.argv = ["app.py", "--port", sys.argv[1], "--offline"]
runpy.run_path("app.py", run_name="__main__")
"""


def test_the_app_is_ready_and_answers_and_ends(tmp_path, clip_file):
    port, clip = (
        free_port(),
        shutil.copy(clip_file, tmp_path),
    )  # the app empties its folder when it ends
    env = {
        "PATH": "",
        "HOME": str(tmp_path),
        "CUDA_VISIBLE_DEVICES": "-1",
        "GRADIO_TEMP_DIR": str(tmp_path),
    }
    env |= {
        name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ
    }
    process = subprocess.Popen(
        [sys.executable, "-c", BARE, str(port)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 300
        while not ready(address):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        name, data = call(address, "match", [uploaded(clip), ["a dog", "a red car"]])
        assert name == "complete" and len(data[0]["matches"]) == 2
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and "REACHED OUT" not in said
    finally:
        process.kill()


def ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(address + "readyz", timeout=10) as answer:
            return json.loads(answer.read())["trouble"] == ""
    except (OSError, urllib.error.HTTPError):
        return False
