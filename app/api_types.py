"""What the public endpoints return, as types that Gradio shows; made from the classes of the
results."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints

import numpy as np

from x2vlm.results import Answers, Caption, DeletionCheck, Explanation, Grounding, Match


def listed(name: str, kind: type, without: str = "") -> Any:
    """The type of an endpoint's results in a list under a name, with the notes."""
    return TypedDict(kind.__name__ + "List", {name: list[json_type(kind, without)], **NOTES})


def json_type(kind: Any, without: str = "", **more: Any) -> Any:
    """The type of a result's `to_dict()`, which Gradio shows as the endpoint's, from the fields of
    its class."""
    if is_dataclass(kind):
        hints = {name: hint for name, hint in get_type_hints(kind).items() if name != without}
        fields = {name: json_type(hint) for name, hint in hints.items()}
        return TypedDict(kind.__name__, fields | more)
    if kind is np.ndarray:
        return list[Any]
    if get_origin(kind) is tuple:
        return list[json_type(get_args(kind)[0])]
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(json_type(part) for part in get_args(kind))]  # noqa: UP007
    return kind


NOTES = {"notes": list[str]}
OVER_TIME = {"seconds": list[float], "matches": list[float]}
RESULTS = {
    "caption": listed("captions", Caption),
    "ask": json_type(Answers, **NOTES),
    "ground": listed("groundings", Grounding, without="explanation"),
    "explain": json_type(Explanation, **NOTES),
    "match": listed("matches", Match),
    "match_over_time": TypedDict("OverTime", OVER_TIME | NOTES),
    "faithfulness": json_type(DeletionCheck, **NOTES),
}
"""Name of an endpoint -> the type of what it returns."""
