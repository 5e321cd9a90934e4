"""Launch settings, a drain at SIGTERM, and a clean-up of old files and sessions."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Collection
from pathlib import Path

import gradio as gr
from gradio.utils import get_space
from starlette.middleware import Middleware

from .. import limits
from ..i18n import I18N
from ..theme import CSS, HEAD, THEME
from .admission import admit
from .api_guard import ApiGuard, refuse_upload
from .gradio_patches import (
    answer_uploads,
    drop_idle_sessions,
    drop_results,
    end_every_job,
    files_of_the_page,
    keep_results,
    keep_sessions_light,
    replace_tracebacks,
    unread_results,
    upload_folder,
)
from .log import log_failure
from .messages import CRASHED, message
from .middleware import HealthCheck, RateLimit

log = logging.getLogger(__name__)

SETTINGS = {
    "theme": THEME,
    "css": CSS,
    "i18n": I18N,
    "head": HEAD,
    "max_file_size": f"{limits.UPLOAD_MEGABYTES}mb",
    "enable_monitoring": False,
    "run_history": False,
    "footer_links": ["api", "settings"],
    "state_session_capacity": limits.SESSIONS,
    "ssr_mode": False,
    "show_error": False,
    # No check of the own address by loading the page: on a busy machine it takes over the 3 s that
    # Gradio allows, and the launch fails although the page is there.
    "_frontend": False,
}


def serve(demo: gr.Blocks, port: int | None = None, share: bool = False, mcp: bool = False) -> None:
    """Launch and block until a signal; then finish what is at work and return."""
    # A list, as the lock of an Event could be held by the very thread that the signal interrupts.
    stop: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: stop.append(number))
    start(demo, server_port=port, share=share, mcp_server=mcp or None)
    # Only now, so that the page is there before the model.
    demo.runner.models.warm()
    threading.Thread(target=_clean_up_forever, args=(demo,), daemon=True).start()
    while not stop:
        time.sleep(0.2)
    log.warning("stopping: finishing what is at work")
    demo.runner.jobs.drain()
    demo.close(verbose=False)


def start(demo: gr.Blocks, **options) -> str:
    """Launch without blocking; returns the local address."""
    demo.queue(max_size=limits.QUEUE, default_concurrency_limit=limits.AT_ONCE, api_open=False)
    admit(demo._queue)
    end_every_job(demo._queue, lambda request: message(CRASHED, request.headers))
    keep_results(demo._queue, limits.UNREAD_RESULTS)
    replace_tracebacks(log_failure)
    answer_uploads(refuse_upload)
    keep_sessions_light()
    quota = limits.JOBS_A_MINUTE if is_public(options.get("share", False)) else None
    middleware = [
        Middleware(HealthCheck, runner=demo.runner),
        Middleware(ApiGuard, demo=demo),
        Middleware(RateLimit, quota=quota),
    ]
    _, address, _ = demo.launch(
        prevent_thread_lock=True, app_kwargs={"middleware": middleware}, **(SETTINGS | options)
    )
    return address


def is_public(share: bool) -> bool:
    """Whether strangers reach the server: by a link, on a Space, or at an address that is not this
    machine's own."""
    name = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    return (
        share or get_space() is not None or name not in ("127.0.0.1", "localhost", "::1", "[::1]")
    )


def _clean_up_forever(demo: gr.Blocks) -> None:
    unread: dict[str, int] = {}
    while True:
        time.sleep(60)
        try:
            clean_up(demo)
            unread = drop_unread(demo, unread)
        except Exception:  # the next round may do better; without one the disk fills up
            log_failure("the clean-up")


def clean_up(demo: gr.Blocks) -> None:
    """Delete old files, the scenes made of them, and sessions that have been idle for as long; give
    back memory."""
    delete_old_files(upload_folder(), kept=files_of_the_page(demo))
    demo.runner.forget()
    drop_idle_sessions(demo, limits.TEMP_SECONDS)
    give_back_memory()


def give_back_memory() -> None:
    """Return to the system what the C library keeps of freed memory, a pool for every thread that
    was at work: over 100 MiB after some visits."""
    with contextlib.suppress(AttributeError, OSError):  # other systems than Linux with glibc
        ctypes.CDLL(None).malloc_trim(0)


def drop_unread(demo: gr.Blocks, unread_before: dict[str, int]) -> dict[str, int]:
    """Forget results that nobody has read since the last round.

    Args:
        unread_before: what the last round returned.

    Returns:
        What is unread now.
    """
    unread = unread_results(demo._queue)
    drop_results(demo._queue, [s for s, box in unread.items() if unread_before.get(s) == box])
    return unread


def delete_old_files(folder: Path, now: float | None = None, kept: Collection[str] = ()) -> int:
    """Delete old files of the upload folder, aborted uploads among them, and the oldest of all
    while over the quota.

    Age is by the last change of content or inode: what Gradio copies into the folder has the
    original's `st_mtime`.

    Args:
        kept: absolute paths of files that stay.

    Returns:
        the number of files deleted.
    """
    now = time.time() if now is None else now
    files, folders = [], []
    for place, _, names in os.walk(os.path.abspath(folder), topdown=False):
        folders.append(place)
        for path in {os.path.join(place, name) for name in names}.difference(kept):
            with contextlib.suppress(OSError):  # Gradio deletes files too, here and below
                found = os.lstat(path)
                files.append((max(found.st_mtime, found.st_ctime), found.st_size, path))
    used = sum(size for _, size, _ in files)
    deleted = 0
    for changed, size, path in sorted(files):
        if used > limits.TEMP_GIGABYTES * 2**30 or now - changed > limits.TEMP_SECONDS:
            used -= size
            with contextlib.suppress(OSError):
                os.unlink(path)
                deleted += 1
    for place in folders[:-1]:  # not the upload folder itself, which comes last
        with contextlib.suppress(OSError):  # gone, or not empty
            if now - os.stat(place).st_mtime > limits.TEMP_SECONDS:
                os.rmdir(place)
    return deleted
