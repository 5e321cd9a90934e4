"""The child process of this package and the parent's end of its pipes.

A file from a stranger is decoded by a process that has no network, environment or file to write to,
little memory and a deadline. It imports Pillow, PyAV and NumPy, never torch. A message in either
direction is two lengths, a JSON header and raw bytes; nothing that comes back from the child is
ever unpickled.
"""

import atexit
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ..errors import Cancelled, MediaError, ParameterError
from .decode import read
from .limits import MediaLimits, address_space, timed_out

WORKERS = 2
"""Children that decode at the same time."""
JOBS_PER_WORKER = 500
"""Jobs after which a child is replaced, so that small leaks cannot add up."""
START_SECONDS = 60.0
GRACE_SECONDS = 1.0
"""The child stops decoding a video at the deadline; this much later the parent kills it."""
POLL_SECONDS = 0.05
STRIP_ROWS = 256
"""Rows of an image that are sent at once: sending the whole would hold its pixels twice."""
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from x2vlm.media.worker import serve
serve(int(sys.argv[2]))
"""


def send(file, header: dict, size: int = 0) -> None:
    """Write the head of a message to a raw pipe; `size` bytes must follow by `write_all`."""
    text = json.dumps(header).encode()
    write_all(file, len(text).to_bytes(4) + size.to_bytes(8) + text)


def write_all(file, data) -> None:
    """Write every byte of a contiguous buffer to a raw pipe."""
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def receive(file, most: int) -> tuple[dict, bytearray]:
    """Read one message of at most `most` bytes from a raw pipe; EOFError where the other end has
    gone."""
    header, size = int.from_bytes(_read_exactly(file, 4)), int.from_bytes(_read_exactly(file, 8))
    if header + size > most:
        raise EOFError
    return json.loads(_read_exactly(file, header)), _read_exactly(file, size)


def _read_exactly(file, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = file.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


# ---------------------------------------------------------------- the child


def serve(memory_bytes: int) -> None:
    """Answer jobs from standard input until it closes."""
    import av

    av.logging.set_level(None)
    source, target = sys.stdin.buffer.raw, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not end up between our messages
    _confine(memory_bytes)
    send(target, {"ready": True})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job, data = receive(source, sys.maxsize)
            data = bytes(data)
            _answer(target, job, data)


def _confine(memory_bytes: int) -> None:
    """Limits on this process, and no way to new rights or the network, as far as the system offers
    them."""
    with contextlib.suppress(ImportError):
        import resource

        for name, value in (
            ("AS", (address_space() or 0) + memory_bytes),
            ("CORE", 0),
            ("FSIZE", 0),
            ("NOFILE", 64),
        ):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        # CLONE_NEWUSER | CLONE_NEWNET; that a host forbids it is no error.
        libc.unshare(0x10000000 | 0x40000000)


def _answer(target, job: dict, data: bytes) -> None:
    try:
        kind, result, extra = read(data, job["want"], job["choice"], MediaLimits(**job["limits"]))
    except (MediaError, ParameterError) as error:
        return send(target, {"error": [error.message, error.code]})
    if kind == "image":
        width, height = result.size
        send(target, {"kind": kind, "size": result.size, "notes": extra}, size=width * height * 3)
        for top in range(0, height, STRIP_ROWS):
            write_all(target, result.crop((0, top, width, min(top + STRIP_ROWS, height))).tobytes())
    else:
        height, width = extra[0].shape[:2]
        send(
            target,
            {"kind": kind, "frame_size": [width, height], **result},
            size=sum(frame.nbytes for frame in extra),
        )
        for frame in extra:
            write_all(target, frame)


# ---------------------------------------------------------------- the parent


class Worker:
    """One child process. Not for two threads at once; `Pool` takes care of that."""

    def __init__(self, memory_bytes: int):
        paths = [
            str(Path(__file__).resolve().parents[2]),
            *(os.path.abspath(p) for p in sys.path if p),
        ]
        # The dynamic loader may need these; no other variable is passed on.
        kept = ("SYSTEMROOT", "LD_LIBRARY_PATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.memory_bytes = memory_bytes
        self.jobs = 0
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", BOOT, json.dumps(paths), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which may want the result
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def ask(
        self, job: dict, data: bytes, seconds: float, most: int, cancel
    ) -> tuple[dict, bytearray]:
        """Send one job and wait for its answer, for `seconds` at most.

        Raises:
            TimeoutError, Cancelled, EOFError (the child died), MediaError (it could not be
            started). The child is dead after any of them.
        """
        if not self.jobs:
            try:
                with self._watched(START_SECONDS, cancel):
                    receive(self.process.stdout, most)
            except (EOFError, TimeoutError):
                message = (
                    "the program that reads media could not be started. Check that av and "
                    "pillow are installed."
                )
                raise MediaError(message, "job/crashed") from None
        self.jobs += 1
        with self._watched(seconds, cancel):
            send(self.process.stdin, job, len(data))
            write_all(self.process.stdin, data)
            return receive(self.process.stdout, most)

    @contextlib.contextmanager
    def _watched(self, seconds: float, cancel):
        """Kill the child when the time is up or the caller has cancelled; that ends the blocking
        read in this thread."""
        deadline, done, fate = time.monotonic() + seconds, threading.Event(), []

        def watch():
            while not done.wait(
                max(0.0, deadline - time.monotonic()) if cancel is None else POLL_SECONDS
            ):
                if cancel is not None and cancel.is_set():
                    fate.append(Cancelled("The work was stopped as you asked.", "job/cancelled"))
                elif time.monotonic() >= deadline:
                    fate.append(TimeoutError())
                if fate:
                    return self.process.kill()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        except BaseException as error:  # half a message may be in the pipe, whatever was raised
            done.set()
            watcher.join()
            self.close()
            if isinstance(error, (OSError, EOFError, ValueError)):
                raise (fate[0] if fate else EOFError()) from None
            raise
        finally:
            done.set()
            watcher.join()

    @property
    def usable(self) -> bool:
        """True while the child runs and is under its job limit."""
        return self.process.poll() is None and self.jobs < JOBS_PER_WORKER

    def close(self) -> None:
        """Kill the child and free its pipes."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Pool:
    """Keeps up to `size` children, started when first needed; every thread of the process may use
    it."""

    def __init__(self, size: int = WORKERS):
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []

    def run(
        self, data: bytes, want: str, choice: dict, limits: MediaLimits, cancel=None
    ) -> tuple[dict, bytearray]:
        """Decode in a child; returns its reply and raw pixels.

        Raises:
            MediaError, ParameterError, Cancelled.
        """
        kind = "video" if want == "video" else "image"
        job = {"want": want, "choice": choice, "limits": asdict(limits)}
        with self._slot(cancel):
            worker = self._take(limits.memory_bytes)
            try:
                reply, body = worker.ask(
                    job, data, limits.decode_seconds + GRACE_SECONDS, limits.memory_bytes, cancel
                )
            except TimeoutError:
                raise MediaError(*timed_out(limits, kind)) from None
            except EOFError:
                message = (
                    "reading it failed in a way that stopped the reader; nothing else is "
                    "affected. Save it again."
                )
                raise MediaError(message, "job/crashed") from None
            finally:
                self._give_back(worker)
        if "error" in reply:
            message, code = reply["error"]
            raise (ParameterError if code.startswith("param/") else MediaError)(message, code)
        return reply, body

    @contextlib.contextmanager
    def _slot(self, cancel):
        while not self._slots.acquire(timeout=POLL_SECONDS):
            if cancel is not None and cancel.is_set():
                raise Cancelled("The work was stopped as you asked.", "job/cancelled")
        try:
            yield
        finally:
            self._slots.release()

    def _take(self, memory_bytes: int) -> Worker:
        with self._lock:
            for worker in self._idle:
                if worker.usable and worker.memory_bytes == memory_bytes:
                    self._idle.remove(worker)
                    return worker
            while self._idle:  # they have other limits or have ended; keep at most `size` children
                self._idle.pop().close()
        try:
            return Worker(memory_bytes)
        except OSError:
            message = (
                "the program that reads media could not be started: no process or memory is "
                "left. Try again later."
            )
            raise MediaError(message, "job/crashed") from None

    def _give_back(self, worker: Worker) -> None:
        if not worker.usable:
            worker.close()
            try:  # start the replacement now, so that the next caller waits less
                worker = Worker(worker.memory_bytes)
            except OSError:  # the system has no process left: the next caller tries again
                return
        with self._lock:
            self._idle.append(worker)

    def close(self) -> None:
        """Stop the idle children."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


def _replace_pool() -> None:
    """A forked process must not share its parent's pipes."""
    global pool
    pool = Pool()


pool = Pool()
atexit.register(lambda: pool.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_pool)
