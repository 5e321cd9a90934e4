"""Every use of a Gradio internal. Each was read from the source of Gradio 6.31.0.

Check them at every new version of Gradio; `tests/app/service/test_gradio_patches.py` fails when one
of the names is gone.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import queueing, route_utils, routes, state_holder
from gradio.context import LocalContext
from gradio.queueing import Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage
from gradio.utils import LRUCache, get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like
from starlette.formparsers import MultiPartException
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


def current_headers() -> Mapping[str, str]:
    """The headers of the present event's request; empty outside of events."""
    return getattr(current_request(), "headers", {})


def names_address(path: str) -> bool:
    """Whether a path that a client names is a web address, which Gradio would fetch."""
    return is_http_url_like(path)


def check_files(data: Any, check: Callable[[str], Any]) -> Any:
    """A copy of a call's values, with `check` called on the path of every file that they name.

    A `meta` that is not an object is left out: Gradio, which looks into it, takes a file without
    `meta` as it is.
    """
    if isinstance(data, Mapping):
        kept = {key: value for key, value in data.items() if key != "meta" or is_object(value)}
        if is_file_obj_with_meta(kept):
            check(kept["path"])
        return {key: check_files(value, check) for key, value in kept.items()}
    return [check_files(value, check) for value in data] if isinstance(data, list) else data


def is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


Push = Callable[[Any, Request, str | None], Awaitable[Any]]


def set_admission(queue: Queue, admission: Callable[[Push], Push]) -> None:
    """Let `admission(push)` stand in for `Queue.push`, through which every job comes: by
    `/queue/join`, `/call/...` and MCP alike.

    `push` gets the job's body (`data`, `fn_index`, `session_hash`), the request and the user.
    It returns (accepted, event id or why not, state); the state "validator_error" with a list of
    `gr.validate` values becomes an answer 422.
    """
    queue.push = admission(queue.push)


def set_owner(queue: Queue, event_id: str, session: str) -> None:
    """Note whose job this is, where the job was queued without its session.

    The streams of plain HTTP calls (`/call/NAME/EVENT`) read the results of a whole session, so
    that two jobs of one session would take each other's: each is queued without one.
    """
    if event := queue.event_ids_to_events.get(event_id):
        event.owner = session


def owner(event: queueing.Event) -> str:
    """The session that a job counts for."""
    return getattr(event, "owner", event.session_hash)


def queued_sessions(queue: Queue) -> list[str]:
    """The session of every job that waits or runs."""
    return [owner(event) for event in queue.event_ids_to_events.values()]


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


async def cancel_job(queue: Queue, session: str, event_id: str, error: str) -> bool:
    """Cancel one job, waiting or running, and end its stream.

    Gradio's own `/cancel` stops every running job of the session that calls the same function, and
    ends the stream of the one it names alone.

    Args:
        error: what the stream of a plain HTTP call (`/call/...`) ends with; the page's own streams
            end as they do without this patch.

    Returns:
        Whether that session has such a job.
    """
    event = queue.event_ids_to_events.get(event_id)
    if event is None or session not in (event.session_hash, owner(event)):
        return False
    ending = f"<gradio-sep>{event_id}"
    tasks = [task for task in asyncio.all_tasks() if task.get_name().endswith(ending)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await queue.remove_from_queue(event_id)
    plain = event.data is not None and event.data.simple_format
    output = {"error": error} if plain else {}
    message = ProcessCompletedMessage(output=output, success=not plain, event_id=event_id)
    if messages := queue.pending_messages_per_session.get(event.session_hash):
        messages.put_nowait(message)
    return True


def knows_event(queue: Queue, event_id: str) -> bool:
    """Whether a job waits, runs, or has a result that nobody has read."""
    return any(event_id in events for events in list(queue.pending_event_ids_session.values()))


def end_every_job(queue: Queue, error: Callable[[Request], str]) -> None:
    """Let every job end with a message to its reader, whatever becomes of it.

    Gradio's `Queue.process_events` tells what a handler raises; what fails around it (building the
    request, checking its address) it prints, and the job's stream would stay open for ever. So
    would the other streams of a session of which one reader has left (`Queue.clean_events`): its
    jobs are given up, but the session's mailbox stays.

    Args:
        error: what a job is told that failed so, by its request.
    """
    process, send, clean = queue.process_events, queue.send_message, queue.clean_events

    def send_and_note(event: queueing.Event, message: EventMessage) -> None:
        event.ended = isinstance(message, ProcessCompletedMessage)
        send(event, message)

    async def process_to_the_end(events: list[queueing.Event], *args: Any) -> None:
        await process(events, *args)
        for event in events:
            if not getattr(event, "ended", False):
                output = {"error": error(event.request)}
                send(event, ProcessCompletedMessage(output=output, success=False))

    async def clean_with_mailbox(
        *, session_hash: str | None = None, event_id: str | None = None
    ) -> None:
        await clean(session_hash=session_hash, event_id=event_id)
        if session_hash is not None:
            drop_results(queue, [session_hash])

    queue.process_events, queue.send_message = process_to_the_end, send_and_note
    queue.clean_events = clean_with_mailbox


def keep_results(queue: Queue, sessions: int) -> None:
    """Keep the unread results of so many sessions; Gradio forgets the oldest of 2000, be its
    visitor still waiting or not."""
    queue.pending_messages_per_session = LRUCache(sessions)


def unread_results(queue: Queue) -> dict[str, int]:
    """For every session without a job that has results nobody has read: an id of its mailbox."""
    busy = set(queued_sessions(queue))
    return {
        session: id(messages)
        for session, messages in list(queue.pending_messages_per_session.items())
        if session not in busy and not messages.empty()
    }


def drop_results(queue: Queue, sessions: Iterable[str]) -> None:
    """Forget the results of these sessions."""
    for session in sessions:
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)


def replace_tracebacks(report: Callable[[str], None]) -> None:
    """Let `report` log the failures of events, in place of Gradio's tracebacks, which quote what a
    visitor sent."""
    quiet = SimpleNamespace(print_exc=lambda: report("an event"))
    queueing.traceback = routes.traceback = quiet
    queueing.print = lambda *_: report("a validator")


class FormParser(route_utils.GradioMultiPartParser):
    """The parser of uploads, whose parts that are no files (fields without a file name) may have
    `most_in_fields` bytes in all; Gradio keeps them in memory without a limit."""

    most_in_fields = 2**20
    in_fields = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.in_fields += end - start
            if self.in_fields > self.most_in_fields:
                raise MultiPartException("The fields are too long.")
        super().on_part_data(data, start, end)


def answer_uploads(refuse: Callable[[int, Request], Exception]) -> None:
    """Let `refuse(status, request)` say what is wrong with an upload that is too large (413), none
    at all or not understood (400)."""

    async def upload(request: Request, *args: Any, **options: Any) -> Any:
        try:
            found = await route_utils.upload_fn(request, *args, **options)
        except MultiPartException as error:
            status = 413 if "maximum allowed size" in error.message else 400
            raise refuse(status, request) from None
        if not found[0]:
            raise refuse(400, request)
        return found

    route_utils.GradioMultiPartParser, routes.upload_fn = FormParser, upload


def too_large_upload() -> MultiPartException:
    """What ends an upload, while it is received, with status 413 and without a file left."""
    return MultiPartException("Over the maximum allowed size.")


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


class Session(state_holder.SessionState):
    """A session without a copy of every component's settings.

    Gradio makes one for each visitor and each call over plain HTTP, 25 ms on the event loop for
    this page, for its deep links alone, which the app does not offer.
    """

    def __init__(self, blocks: gr.Blocks):
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def keep_sessions_light() -> None:
    """Let every session be a `Session`."""
    state_holder.SessionState = Session


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
