"""What the Predictor returns: frozen values in the user's own coordinates, each with `to_dict()`
for JSON.

Boxes are `(x1, y1, x2, y2)` in pixels of the upright image (`box_xyxy`) and `(cx, cy, w, h)` as
fractions of its sides (`box_cxcywh`). Maps are float32 on the patch grid, row-major, top row first.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np

Verdict = Literal["found", "unsure", "absent"]
UNSURE = "unsure"
"""The answer to a question that was not understood, or that makes no sense here."""


class _Result:
    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; arrays become nested lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def _repr_html_(self) -> str:
        """A small table for notebooks; arrays by their shape."""
        cells = [(f.name, _told(getattr(self, f.name))) for f in dataclasses.fields(self)]
        rows = "".join(
            f"<tr><th align=left>{name}</th><td>{told}</td></tr>" for name, told in cells
        )
        return f"<table>{rows}</table>"


def _told(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, _Result):
        return value._repr_html_()
    if isinstance(value, np.ndarray):
        return f"array {' x '.join(map(str, value.shape))}"
    if isinstance(value, tuple) and value and all(isinstance(one, _Result) for one in value):
        return "".join(one._repr_html_() for one in value)
    if isinstance(value, tuple):
        return escape(", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value))
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


@dataclass(frozen=True)
class _SceneResult(_Result):
    """What is said of an image or video. `notes` are sentences about it for the user, those of
    `Scene.notes`."""

    notes: tuple[str, ...] = field(default=(), kw_only=True)


def with_notes(result: Any, notes: tuple[str, ...]) -> Any:
    """A result, or a tuple of results, that tells the notes of its scene; all else as it is."""
    if isinstance(result, tuple):
        return tuple(with_notes(one, notes) for one in result)
    if notes and isinstance(result, _SceneResult):
        return dataclasses.replace(result, notes=notes)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, _Result):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Word(_Result):
    """A whole word (its word pieces merged): characters `text[start:end]` of the sentence,
    probability if generated."""

    text: str
    start: int
    end: int
    probability: float | None = None


@dataclass(frozen=True)
class Phrase(_Result):
    """Words that have one map: characters `text[start:end]` of the sentence, and the positions of
    its `words`. `match` is its own match probability where it was read by itself."""

    text: str
    start: int
    end: int
    words: tuple[int, ...]
    match: float | None = None


@dataclass(frozen=True)
class Caption(_SceneResult):
    """One caption. `log_probability` is the sum over tokens (end token included); `match` the
    matching head's probability.

    `finished` is False when the length limit stopped it, `repetitive` is True when it repeats
    itself.
    """

    text: str
    log_probability: float
    tokens: tuple[str, ...]
    token_log_probabilities: tuple[float, ...]
    words: tuple[Word, ...]
    match: float | None = None
    finished: bool = True
    repetitive: bool = False


@dataclass(frozen=True)
class Answer(_Result):
    """One answer and its probability: among the ranked candidates, or of the generated sequence."""

    text: str
    probability: float


@dataclass(frozen=True)
class Answers(_SceneResult):
    """The answers to one question, best first.

    Attributes:
        unsure: the question was not understood or has no answer here, since the best answer is
            less probable than the checkpoint's measured limit.
    """

    question: str
    answers: tuple[Answer, ...]
    mode: Literal["rank", "generate"]
    truncated_at: int | None = None
    unsure: bool = False

    @property
    def best(self) -> str:
        """The first answer, `UNSURE` where the model is, empty where it wrote none."""
        if self.unsure:
            return UNSURE
        return self.answers[0].text if self.answers else ""


@dataclass(frozen=True)
class Match(_SceneResult):
    """How well a text fits: `probability` from the matching head (fused), `similarity` the cosine
    of the two encoders."""

    text: str
    probability: float | None
    similarity: float | None
    truncated_at: int | None = None


@dataclass(frozen=True)
class Agreement(_Result):
    """Box against heat: does the map's peak lie in the box, what share of its energy, and how much
    of the image the box is.

    A map without contrast has no peak: `pointing_hit` is then None.
    """

    pointing_hit: bool | None
    energy_inside: float
    box_area: float


@dataclass(frozen=True)
class Explanation(_SceneResult):
    """Heat maps of a text: one per phrase, and one of the text as a whole.

    `maps` is float32 (words, grid, grid): the words of a phrase share its map, a word of no phrase
    ("in", "the") has a map of zeros. `overall` is float32 (grid, grid), the mean over all tokens,
    the special ones too. Maps are not normalised; for a video they are maps of the temporal mean.
    `score` is the explained quantity of the whole text (match probability, token probability, or
    box coordinate sum).
    `target` and `method` are names of `x2vlm.options.TARGETS` and `METHODS`. `truncated_at` is the
    character at which the text was cut, None if it was not.
    """

    text: str
    words: tuple[Word, ...]
    maps: np.ndarray = field(repr=False)
    overall: np.ndarray = field(repr=False)
    target: str
    method: str
    layer: int | None
    score: float
    truncated_at: int | None = None
    head: int | str | None = None
    phrases: tuple[Phrase, ...] = ()


@dataclass(frozen=True)
class Grounding(_SceneResult):
    """Where one phrase is, whether it is there at all, and what its heat says. `frame` is set for
    videos."""

    phrase: str
    box_xyxy: tuple[float, float, float, float]
    box_cxcywh: tuple[float, float, float, float]
    match: float | None
    verdict: Verdict | None
    explanation: Explanation | None = None
    agreement: Agreement | None = None
    frame: int | None = None
    truncated_at: int | None = None


@dataclass(frozen=True)
class Completion(_SceneResult):
    """One filling of a text's `[MASK]`s: the completed text and the probability of the filled
    tokens."""

    text: str
    probability: float


@dataclass(frozen=True)
class DeletionCheck(_SceneResult):
    """Match probability while patches disappear step by step (`deletion`) or appear (`insertion`),
    the hottest first, against random orders.

    `fractions` and the curves have one entry per step: `by_heat`, `by_chance` (the mean of the
    random orders), `chance_low` and `chance_high` (their lowest and highest). `faithfulness` is the
    area between the curves, above 0 where the map finds what matters. `verdict` is `cannot tell`
    where the random orders change the match as fast, or differ among themselves as much.
    """

    fractions: tuple[float, ...]
    by_heat: tuple[float, ...]
    by_chance: tuple[float, ...]
    faithfulness: float
    chance_low: tuple[float, ...] = ()
    chance_high: tuple[float, ...] = ()
    mode: str = "deletion"
    fill: str = "blur"
    verdict: Literal["faithful", "not faithful", "cannot tell"] = "cannot tell"


@dataclass(frozen=True)
class RegionDescription(_SceneResult):
    """What is inside a box (`box_xyxy`, clipped to the image): captions, and the given phrases,
    best first."""

    box_xyxy: tuple[float, float, float, float]
    captions: tuple[Caption, ...]
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class ModelInfo(_Result):
    """What a Predictor runs on; of a suite, its first model.

    Attributes:
        name: as asked for, without folders.
        hash: first 12 hex digits of the weights' SHA-256, empty for a model made in memory.
        parameters: number of weights of all models in the suite.
        image_size: (height, width) in pixels at which images are looked at.
        grid_size: (rows, columns) of patches, the shape of heat maps.
        num_frames: frames of a video that are looked at by default.
        num_layers: fusion layers, the choice of `layer` in `Predictor.explain`.
        num_heads: attention heads of a fusion layer, the choice of `head` there.
        thresholds: match probabilities (absent, present): below the first a phrase is absent, from
            the second on found.
        note: what the model knows and does not, for the user.
        example: a question that it understands.
        left_out: weights of the files that the models have no place for, left out on request.
    """

    name: str
    hash: str
    device: str
    dtype: str
    parameters: int
    image_size: tuple[int, int]
    grid_size: tuple[int, int]
    num_frames: int
    num_layers: int
    num_heads: int
    thresholds: tuple[float, float]
    note: str
    example: str = ""
    left_out: tuple[str, ...] = ()
