"""JSON as annotation files hold it. A fault is named, and in a list it costs the entry that it
stands in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from x2vlm.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^,\]\s]*")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parse_json(text: str | bytes) -> Any:
    """One JSON value; bytes are UTF-8, with or without a byte order mark.

    Raises:
        DataError: not UTF-8 (`data/encoding`); not JSON, NaN or Infinity, or nested more deeply
            than can be read, or with a number of thousands of digits (`data/json`).
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise DataError("The text is not UTF-8.", "data/encoding") from None
    except json.JSONDecodeError:
        raise DataError("The text is not JSON.", "data/json") from None
    except (RecursionError, ValueError) as error:
        raise _unreadable(error) from None


@lru_cache(maxsize=8)
def read_json_list(path: str | Path) -> list[Any]:
    """A JSON file whose top level is a list.

    An entry that `parse_json` would refuse for what it holds (NaN, depth) is the `DataError` that
    says so, for the caller to raise when the entry is asked for; others are not affected.

    Raises:
        DataError: the file cannot be read, is not UTF-8, not JSON or not a list; the message names
            the file and, for wrong JSON, the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror}.", "data/missing") from None
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8 text.", "data/encoding") from None
    start = _SPACE.match(text).end()
    try:
        if text[start : start + 1] == "{":
            raise DataError(f"{path.name} does not hold a list.", "data/format")
        try:
            content = json.loads(text, parse_constant=_no_constant)
        except json.JSONDecodeError:
            raise
        except (DataError, RecursionError, ValueError):
            content = list(_entries(text, start))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}, line {error.lineno}: the text is not JSON ({error.msg}).", "data/json"
        ) from None
    if not isinstance(content, list):
        raise DataError(f"{path.name} does not hold a list.", "data/format")
    return content


def _entries(text: str, start: int) -> Iterator[Any]:
    """The entries of the list that begins at `start`, one by one; `DataError` in the place of those
    that cannot be used."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    if text[start : start + 1] != "[":
        raise json.JSONDecodeError("Expecting a list", text, start)
    position, sign = _SPACE.match(text, start + 1).end(), ","
    while sign == ",":
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            raise
        except (DataError, RecursionError, ValueError) as error:
            value, end = _unreadable(error), _end_of_value(text, position)
        yield value
        end = _SPACE.match(text, end).end()
        sign, position = text[end : end + 1], _SPACE.match(text, end + 1).end()
    if sign != "]" or position != len(text):
        raise json.JSONDecodeError("Expecting ',' delimiter", text, end)


def _end_of_value(text: str, start: int) -> int:
    """Where the list or object that begins at `start` ends; a constant
    or number ends before the next separator."""
    if text[start] not in "[{":
        return _SCALAR.match(text, start).end()
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    raise json.JSONDecodeError("Unterminated list or object", text, start)


def _no_constant(name: str) -> None:
    raise DataError(f"{name} is no JSON number.", "data/json")


def _unreadable(error: Exception) -> DataError:
    """What valid JSON that Python cannot hold is called: nested too deeply, or a number of
    thousands of digits (a `ValueError`)."""
    if isinstance(error, DataError):
        return error
    deep = isinstance(error, RecursionError)
    what = "is nested too deeply" if deep else "holds a number with too many digits"
    return DataError(f"The JSON {what}.", "data/json")


def parse_entry(line: bytes) -> dict[str, Any]:
    """One JSON object in UTF-8. Raises `DataError`."""
    entry = parse_json(line)
    if not isinstance(entry, dict):
        raise DataError("The entry is not a JSON object.", "data/entry")
    return entry
