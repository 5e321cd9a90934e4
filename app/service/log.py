"""Failures in the log: what failed and where in the code, never a visitor's text or path."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import PurePath

log = logging.getLogger(__name__)


def log_failure(what: str) -> None:
    """Log the exception that is being handled: the classes of it and of its causes, and the lines
    of code that it passed. Its message is left out, for it may quote what a visitor sent."""
    error = sys.exc_info()[1]
    lines = []
    while error is not None:
        lines.append(type(error).__name__)
        for frame in traceback.extract_tb(error.__traceback__):
            place = "/".join(PurePath(frame.filename).parts[-3:])
            lines.append(f"  {place}:{frame.lineno} in {frame.name}")
        error = error.__cause__ or error.__context__
    log.error("%s failed\n%s", what, "\n".join(lines))
