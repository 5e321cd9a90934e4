"""A process and its children, as Linux tells of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Its child processes, whichever of its threads started them."""
    found = []
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found += map(int, place.read_text().split())
    return found


def memory(pid: int) -> float:
    """MiB of RAM that it and its children hold; what they share counts for each."""
    pages = 0
    for one in (pid, *children(pid)):
        with contextlib.suppress(OSError):  # a child that has ended
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(pid: int) -> int:
    """Its open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
