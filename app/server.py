"""Serving: launch settings, a drain at SIGTERM, and a janitor for files that nobody deletes."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path

import gradio as gr
from gradio.utils import get_space, get_upload_folder
from starlette.middleware import Middleware

from . import limits
from .doorman import Doorman, admit
from .i18n import I18N, IN_OWN_LANGUAGE
from .theme import CSS, THEME

log = logging.getLogger(__name__)

SETTINGS = {
    "theme": THEME,
    "css": CSS,
    "i18n": I18N,
    "head": IN_OWN_LANGUAGE,
    "max_file_size": f"{limits.UPLOAD_MEGABYTES}mb",
    "enable_monitoring": False,
    "run_history": False,
    "footer_links": ["api", "settings"],
    "state_session_capacity": limits.SESSIONS,
    "ssr_mode": False,
    "show_error": False,
}


def serve(demo: gr.Blocks, port: int | None = None, share: bool = False, mcp: bool = False) -> None:
    """Launch and block until a signal; then finish what is at work and return."""
    stop: list[int] = []  # a lock, such as an Event's, could be held by the very thread that the signal interrupts
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: stop.append(number))
    start(demo, server_port=port, share=share, mcp_server=mcp or None)
    demo.studio.models.warm()  # now: the page is there before the model, and Gradio's own check of its address is not slowed
    threading.Thread(target=_tidy_for_ever, daemon=True).start()
    while not stop:
        time.sleep(0.2)
    log.warning("stopping: finishing what is at work")
    demo.studio.gate.drain()
    demo.close(verbose=False)


def start(demo: gr.Blocks, **options) -> str:
    """Launch without blocking; returns the local address."""
    demo.queue(max_size=limits.QUEUE, default_concurrency_limit=limits.AT_ONCE, api_open=False)
    admit(demo._queue)
    quota = limits.JOBS_A_MINUTE if get_space() else None
    door = Middleware(Doorman, studio=demo.studio, quota=quota)
    _, address, _ = demo.launch(prevent_thread_lock=True, app_kwargs={"middleware": [door]}, **(SETTINGS | options))
    return address


def _tidy_for_ever() -> None:
    while True:
        time.sleep(60)
        tidy(Path(get_upload_folder()))


def tidy(folder: Path, now: float | None = None) -> int:
    """Delete old files of the upload folder, aborted uploads among them, and the oldest of all while over the quota.

    Returns:
        the number of files deleted.
    """
    now = time.time() if now is None else now
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.rglob("*") if path.is_file())
    used = sum(size for _, size, _ in files)
    deleted = 0
    for changed, size, path in files:
        if used > limits.TEMP_GIGABYTES * 2**30 or now - changed > limits.TEMP_SECONDS:
            path.unlink(missing_ok=True)
            used -= size
            deleted += 1
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and now - path.stat().st_mtime > limits.TEMP_SECONDS and not any(path.iterdir()):
            path.rmdir()
    return deleted
