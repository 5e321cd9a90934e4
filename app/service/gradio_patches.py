"""Every use of a Gradio internal. Each was read from the source of Gradio 6.31.0.

Check them at every new version of Gradio; `tests/app/service/test_gradio_patches.py` fails when one
of the names is gone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.queueing import Queue
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from starlette.requests import Request


def upload_folder() -> Path:
    """Where Gradio puts what visitors upload."""
    return Path(get_upload_folder())


def results_folder() -> Path:
    """A new folder for downloads, inside the upload folder, so that the clean-up sees it."""
    parent = upload_folder() / "results"
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


def current_request() -> Any:
    """The request of the present event; None outside of events."""
    return LocalContext.request.get(None)


def names_address(path: str) -> bool:
    """Whether a path that a client names is a web address, which Gradio would fetch."""
    return is_http_url_like(path)


def check_files(data: Any, check: Callable[[Any], Any]) -> None:
    """Call `check` with the path of every file that a call's values name."""
    traverse(data, lambda file: check(file["path"]), is_file_obj_with_meta)


Push = Callable[[Any, Request, str | None], Awaitable[Any]]


def set_admission(queue: Queue, admission: Callable[[Push], Push]) -> None:
    """Let `admission(push)` stand in for `Queue.push`, through which every job comes: by
    `/queue/join`, `/call/...` and MCP alike.

    `push` gets the job's body (`data`, `fn_index`, `session_hash`), the request and the user.
    It returns (accepted, event id or why not, state); the state "validator_error" with a list of
    `gr.validate` values becomes an answer 422.
    """
    queue.push = admission(queue.push)


def queued_sessions(queue: Queue) -> list[str]:
    """The session of every job that waits or runs."""
    return [event.session_hash for event in queue.event_ids_to_events.values()]


def mean_job_seconds(queue: Queue, concurrency_id: str) -> float | None:
    """How long the ended jobs of one concurrency id took on average; None before any has ended."""
    times = [
        time
        for fn, time in queue.process_time_per_fn.items()
        if fn.concurrency_id == concurrency_id
    ]
    ended = sum(time.count for time in times)
    return sum(time.process_time for time in times) / ended if ended else None


def mcp_session(queue: Queue) -> str | None:
    """The one session by which Gradio's MCP server calls for all of its clients: a random name."""
    client = getattr(queue.blocks.mcp_server_obj, "_client_instance", None)
    return client.session_hash if client else None


def refuse_addresses(demo: gr.Blocks, message: str) -> None:
    """No component of the page fetches an address that a client names: `gr.Error(message)`."""
    for block in demo.blocks.values():
        if isinstance(block, gr.components.Component):
            move = block.async_move_resource_to_block_cache
            block.async_move_resource_to_block_cache = _local_only(move, message)


def _local_only(move: Any, message: str) -> Any:
    async def guarded(path: Any) -> str | None:
        if path is not None and is_http_url_like(str(path)):
            raise gr.Error(message, print_exception=False)
        return await move(path)

    return guarded


def files_of_the_page(demo: gr.Blocks) -> set[str]:
    """Absolute paths of the files in the upload folder that every visitor's page begins with."""
    return set().union(*(block.keep_in_cache for block in demo.blocks.values()))


def drop_idle_sessions(demo: gr.Blocks, seconds: float) -> None:
    """Forget sessions that have been idle for so long.

    Gradio itself drops a session's `gr.State` values only; every component's last value would stay.
    """
    holder, oldest = demo.state_holder, datetime.now() - timedelta(seconds=seconds)
    with holder.lock:
        for session, used in list(holder.time_last_used.items()):
            if used < oldest:
                del holder.time_last_used[session]
                holder.session_data.pop(session, None)
