"""What the columns of people's own tables mean, and what a row says of its image for a task."""

from __future__ import annotations

import json
import re
from typing import Any

from train.data.formats import captions_of
from train.prepare.layouts import SPLITS, Row
from x2vlm.errors import DataError

COLUMNS = {
    "image": "image image_path image_file img img_path photo picture file file_name filename "
    "filepath path",
    "caption": "caption captions text texts sentence sentences description alt_text title label "
    "class category",
    "question": "question query",
    "answer": "answer answers label",
    "phrase": "phrase expression text caption sentence label class category",
    "box": "box bbox bb box_xywh box_xyxy",
    "split": "split set subset partition",
}
"""What we look for -> the names of columns that are taken for it, the best first."""
CORNERS = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"))
EDGES = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1"))
NUMBERED = re.compile(r"(caption|text|sentence)[ _-]?(\d+|(?!id)[a-z]{2})")
"""caption_1, caption-2, caption_fr: all of them are captions."""
NEEDS = {
    "caption": ("caption",),
    "retrieval": ("caption",),
    "ask": ("question", "answer"),
    "ground": ("phrase", "box"),
}
"""Task -> what a row says of its image."""


class Columns:
    """The columns of a table for a task.

    Args:
        table: name of the table, for messages.
        task: a key of `NEEDS`.
        given: what we look for -> name of the column.
        first: the row that the columns are found on.

    Raises:
        DataError: a column of the task is missing (`data/key`).
    """

    def __init__(self, table: str, task: str, given: dict[str, str], first: Row):
        self.task = task
        lower = {str(name).lower(): name for name in first.columns}
        found = {}
        for what, names in COLUMNS.items():
            known = [lower[name] for name in names.split() if name in lower]
            found[what] = [given[what]] if what in given else known[:1]
        if not found["caption"]:
            found["caption"] = [lower[name] for name in lower if NUMBERED.fullmatch(name)]
        four = next((edges for edges in (*CORNERS, *EDGES) if set(edges) <= lower.keys()), ())
        found["box"] = found["box"] or [lower[name] for name in four]
        taken = {name for names in found.values() for name in names}
        rest = [name for name in first.columns if name not in taken]
        if not found["caption"] and len(rest) == 1:
            found["caption"] = rest
        for what in ("image", *NEEDS[task]):
            if not found[what] or not set(found[what]) <= first.columns.keys():
                raise DataError(
                    f"{table} has the columns {', '.join(map(str, first.columns))}; none is known "
                    f"as the {what}. Name it: --columns {what}=COLUMN.",
                    "data/key",
                )
        self.found = found

    def value(self, row: Row, what: str) -> Any:
        """What stands in the column for `what`; None without one."""
        names = self.found[what]
        return row.columns.get(names[0]) if names else None

    def part(self, row: Row) -> str:
        """train, val, test or "", by the folder or the column."""
        return row.split or SPLITS.get(str(self.value(row, "split") or "").lower(), "")

    def said(self, row: Row) -> list[Any]:
        """Captions, or one (question, answers), or one (phrase, box).

        Raises:
            DataError: something is missing or not as it should be; the message does not name the
                row, so that equal ones can be counted.
        """
        if self.task == "ask":
            question, answers = self.value(row, "question"), self.value(row, "answer")
            answers = answers if isinstance(answers, list) else [answers]
            _require_text([question], "question")
            _require_text(answers, "answer")
            return [(str(question).strip(), [str(text).strip() for text in answers])]
        if self.task == "ground":
            phrase = self.value(row, "phrase")
            _require_text([phrase], "phrase")
            return [(str(phrase).strip(), self.box(row))]
        texts: list[str] = []
        for value in map(row.columns.get, self.found["caption"]):
            if isinstance(value, int | float):  # a class by its number says nothing
                raise DataError(f"the caption is the number {value:g}", "data/text")
            if value and (not isinstance(value, str) or value.strip()):
                texts += captions_of({"caption": value})
        _require_text(texts, "caption")
        return [" ".join(text.split()) for text in texts]

    def box(self, row: Row) -> list[float]:
        """(x, y, w, h) in pixels. Raises `DataError`."""
        names = self.found["box"]
        try:
            values: Any = [row.columns[name] for name in names]
            if len(names) == 1:
                values = json.loads(values[0]) if isinstance(values[0], str) else values[0]
            a, b, c, d = (float(value) for value in values)
        except (TypeError, ValueError, KeyError):
            raise DataError("the box is not four numbers", "data/box") from None
        lower = tuple(str(name).lower() for name in names)
        if lower in EDGES or lower == ("box_xyxy",):
            c, d = c - a, d - b
        return [a, b, c, d]


def _require_text(texts: list[Any], what: str) -> None:
    if not texts or not all(str(text or "").strip() for text in texts):
        raise DataError(f"no {what}", "data/text")
