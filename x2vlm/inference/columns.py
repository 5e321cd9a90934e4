"""Predictions as columns: what `datasets.Dataset.map(..., batched=True)` and its like call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from x2vlm.checks import check_choice
from x2vlm.errors import X2VLMError

Columns = dict[str, list[Any]]

COLUMNS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "caption": lambda captions: {"caption": captions[0].text, "match": captions[0].match},
    "answer": lambda answers: {
        "answer": answers.best,
        "probability": answers.answers[0].probability if answers.answers else None,
    },
    "ground": lambda groundings: {
        "phrases": [one.phrase for one in groundings],
        "boxes": [list(one.box_xyxy) for one in groundings],
        "scores": [one.match for one in groundings],
        "verdicts": [one.verdict for one in groundings],
    },
    "match": lambda matches: {
        "scores": [one.probability for one in matches],
        "similarities": [one.similarity for one in matches],
    },
}
"""Task -> the columns of one result."""
EMPTY = {
    "caption": ("caption", "match"),
    "answer": ("answer", "probability"),
    "ground": ("phrases", "boxes", "scores", "verdicts"),
    "match": ("scores", "similarities"),
}
"""Task -> its columns, None where an item failed."""


@dataclass(frozen=True)
class ColumnFunction:
    """A function from columns to new columns; see `Predictor.batch`."""

    predictor: Any
    task: str
    image: str
    text: str | None
    texts: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_choice("task", self.task, tuple(COLUMNS))

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Columns of equal length to the new columns, `error` among them."""
        images = [_image(value) for value in columns[self.image]]
        texts = self.texts if self.text is None else list(columns[self.text])
        arguments = () if self.task == "caption" else (texts,)
        results = getattr(self.predictor, self.task)(images, *arguments, **self.options)
        found: Columns = {name: [] for name in (*EMPTY[self.task], "error")}
        for result in results:
            bad = isinstance(result, X2VLMError)
            row = dict.fromkeys(EMPTY[self.task]) if bad else COLUMNS[self.task](result)
            for name, value in (row | {"error": str(result) if bad else None}).items():
                found[name].append(value)
        return found


def _image(value: Any) -> Any:
    """An image as the package datasets stores it undecoded, `{bytes, path}`, or any other."""
    return (value.get("bytes") or value.get("path")) if isinstance(value, Mapping) else value
