"""What can be chosen: tasks, explanation targets, heat-map methods, and the options of captions,
answers and explanations with their defaults and ranges.

Every fact stands here once. `Predictor` checks its arguments by these tables, and the command line,
the API and the page build their flags, signatures and controls from them. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from x2vlm.checks import check_choice, check_number
from x2vlm.config import Few

TASKS: dict[str, tuple[str, ...]] = {
    "caption": ("masked_lm", "causal_lm"),
    "answer": ("answer_decoder", "classification"),
    "ground": ("box",),
    "explain": ("matching", "box", "masked_lm", "causal_lm", "answer_decoder", "classification"),
    "match": ("matching", "contrastive"),
    "complete": ("masked_lm",),
    "describe_region": ("masked_lm", "causal_lm", "matching", "contrastive"),
    "video": (),
}
"""Task of a Predictor -> the heads that serve it, one of which is enough. `video` needs frame
positions instead of a head."""


@dataclass(frozen=True)
class Target:
    """What an explanation explains.

    Attributes:
        task: the task whose model is explained.
        heads: heads that this model must have.
        help: one sentence for people.
    """

    task: str
    heads: tuple[str, ...]
    help: str


TARGETS: dict[str, Target] = {
    "phrase": Target(
        "match", ("matching",), "the match of each phrase of the text, read by itself"
    ),
    "match": Target("match", ("matching",), "the match of the text with the image"),
    "caption": Target("caption", (), "the probability of each word of a caption"),
    "answer": Target("answer", (), "the probability of an answer to the question"),
    "box": Target("ground", (), "the box of the text"),
}


@dataclass(frozen=True)
class Use:
    """What a map is for. A checkpoint's settings hold the best `MapChoice` for every use.

    Attributes:
        task: the task whose model has the settings.
        targets: what may be explained; the first that the model has the heads for is the fallback.
        help: one sentence for people.
    """

    task: str
    targets: tuple[str, ...]
    help: str


USES: dict[str, Use] = {
    "caption": Use("caption", ("phrase", "caption", "match", "box"), "the words of a caption"),
    "query": Use(
        "match", ("phrase", "match", "box", "caption", "answer"), "the words of a typed text"
    ),
    "phrase": Use("ground", ("match", "box"), "a phrase as a whole"),
    "answer": Use("answer", ("answer",), "an answer to a question"),
}


@dataclass(frozen=True)
class Method:
    """A way to compute heat maps; the functions are in `x2vlm.inference.explain`.

    Attributes:
        layered: whether a fusion layer and an attention head can be chosen.
        help: one sentence for people.
        whole: whether a text has one map, whatever is explained of it, and its words none.
    """

    layered: bool
    help: str
    whole: bool = False


METHODS: dict[str, Method] = {
    "gradient": Method(True, "Grad-CAM on cross-attention: attention times positive gradient"),
    "attention": Method(True, "cross-attention probabilities alone"),
    "rollout": Method(False, "relevance through self- and cross-attention of all layers"),
    "similarity": Method(
        False, "what looks like the text: similarity of every patch, by the encoders alone", True
    ),
    "image-gradcam": Method(
        False, "Grad-CAM at the image tower's output, one map for the text", True
    ),
    "random": Method(False, "the random baseline"),
}


TargetName = Literal[tuple(TARGETS)]
MethodName = Literal[tuple(METHODS)]


@dataclass(frozen=True)
class Option:
    """One choice: all that a check, a flag or a slider needs to know.

    Attributes:
        kind: int, float, bool or str.
        default: None where the model decides.
        low, high: least and greatest number; None for a text or a switch.
        choices: the texts to choose from; empty for a free text.
        help: one sentence for people.
    """

    name: str
    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""

    def check(self, value: Any) -> Any:
        """The value itself, a number as `kind`.

        Raises:
            ParameterError: outside its range, or none of the choices (`param/range`).
        """
        if value is None and self.default is None:
            return None
        if self.low is not None:
            return check_number(self.name, value, self.low, self.high, whole=self.kind is int)
        return check_choice(self.name, value, self.choices) if self.choices else value


def _option(
    kind: type,
    default: Any,
    help: str,
    limits: tuple[float | None, float | None] = (None, None),
    choices: Sequence[str] = (),
) -> Any:
    facts = {"kind": kind, "help": help, "low": limits[0], "high": limits[1]}
    return field(default=default, metadata={**facts, "choices": tuple(choices)})


class Options:
    """Base of the option sets below: frozen dataclasses whose values are checked when made."""

    @classmethod
    def table(cls) -> dict[str, Option]:
        """Name -> `Option`, in the order of the fields."""
        return {
            f.name: Option(f.name, default=f.default, **f.metadata) for f in dataclasses.fields(cls)
        }

    def __post_init__(self) -> None:
        for name, option in self.table().items():
            object.__setattr__(self, name, option.check(getattr(self, name)))


_SEEDS = (0, 2**63 - 1)


@dataclass(frozen=True)
class CaptionOptions(Options):
    """How captions are written."""

    num_beams: int = _option(int, 3, "beams of the search, unless words are drawn", (1, 10))
    num_captions: int = _option(int, 1, "captions to write, best first", (1, 10))
    min_length: int | None = _option(
        int, None, "tokens before the caption may end; by default as the model was tuned", (0, 200)
    )
    max_new_tokens: int = _option(
        int, 30, "longest caption in tokens, cut to what the model can hold", (1, 200)
    )
    do_sample: bool = _option(bool, False, "draw words instead of searching the most probable ones")
    top_p: float = _option(
        float, 0.9, "share of the probability that words are drawn from", (0.01, 1)
    )
    temperature: float = _option(
        float, 1.0, "how evenly words are drawn: below 1 bolder, above 1 flatter", (0.01, 10)
    )
    seed: int = _option(int, 0, "of the drawing; the same seed gives the same captions", _SEEDS)
    prefix: str | None = _option(str, None, "words that the caption begins with")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_length is not None:
            check_number("min_length", self.min_length, 0, self.max_new_tokens)


@dataclass(frozen=True)
class AnswerOptions(Options):
    """How a question is answered."""

    top_k: int = _option(int, 5, "answers to return, best first", (1, 100))
    mode: str | None = _option(
        str,
        None,
        "choose from the list, or write freely; by default the list where there is one",
        choices=("rank", "generate"),
    )


@dataclass(frozen=True)
class ExplainOptions(Options):
    """What is explained, and how the heat maps are computed. What is not given is the choice that
    points best, measured for the checkpoint and stored in its settings."""

    use: str | None = _option(
        str,
        None,
        "what the text is; by default as the target says, a typed text without one",
        choices=tuple(USES),
    )
    target: str | None = _option(
        str, None, "what is explained; by default what points best", choices=tuple(TARGETS)
    )
    answer: str | None = _option(str, None, "the answer to explain; by default the best one")
    method: str | None = _option(
        str, None, "how the maps are computed; by default what points best", choices=tuple(METHODS)
    )
    layer: int | str | None = _option(
        str, None, "fusion layer from 0, or mean; by default what points best"
    )
    head: int | str | None = _option(
        str, None, "attention head from 0, max or mean; by default what points best"
    )
    unit: str = _option(
        str,
        "phrase",
        "what has a map of its own: phrases, or every word",
        choices=("phrase", "word"),
    )
    seed: int = _option(int, 0, "of the random baseline", _SEEDS)

    @property
    def purpose(self) -> str:
        """The use, by default the one that the target belongs to."""
        if self.use is not None:
            return self.use
        if self.answer is not None and self.target is None:
            return "answer"
        known = {"caption": "caption", "answer": "answer", "match": "phrase", "box": "phrase"}
        return known.get(self.target, "query")


@dataclass(frozen=True)
class MapChoice:
    """How the maps of one use are computed.

    Attributes:
        target, method: names of `TARGETS` and `METHODS`.
        layer: fusion layer from 0, None for the mean of all.
        head: attention head from 0, `max` for the strongest head of each patch, None for the mean
            of all.
    """

    target: TargetName
    method: MethodName = "gradient"
    layer: Few | None = None
    head: Few | Literal["max"] | None = None

    def changed_by(self, options: ExplainOptions, target: str) -> MapChoice:
        """This choice with what the caller chose in its place. Layer and head hold only for the
        target and method that they were measured for."""
        stored = self if self.target == target else MapChoice(target)
        method = options.method or stored.method
        if method != stored.method:
            stored = MapChoice(target, method)
        layer = stored.layer if options.layer is None else options.layer
        head = stored.head if options.head is None else options.head
        if not METHODS[method].layered:
            layer = head = None
        return MapChoice(
            target, method, None if layer == "mean" else layer, None if head == "mean" else head
        )

    def check(self, num_layers: int, num_heads: int) -> None:
        """Raises:
        ParameterError: the model has no such layer or head (`param/range`).
        """
        if self.layer is not None:
            check_number("layer", self.layer, 0, num_layers - 1)
        if self.head not in (None, "max"):
            check_number("head", self.head, 0, num_heads - 1)


@dataclass(frozen=True)
class MapChoices:
    """The best choice for every use (`USES`), measured by `x2vlm calibrate`."""

    caption: MapChoice = MapChoice("phrase")
    query: MapChoice = MapChoice("phrase")
    phrase: MapChoice = MapChoice("match")
    answer: MapChoice = MapChoice("answer")


@dataclass(frozen=True)
class DeletionOptions(Options):
    """How the faithfulness of a map is checked."""

    mode: str = _option(
        str,
        "deletion",
        "take the hottest patches away, or put them into an empty image",
        choices=("deletion", "insertion"),
    )
    fill: str = _option(
        str, "blur", "what stands in place of a patch that is away", choices=("blur", "mean")
    )
    steps: int = _option(int, 20, "steps from the whole image to none of it", (1, 100))
    draws: int = _option(int, 5, "random orders to compare with", (1, 50))
    seed: int = _option(int, 0, "of the random orders", _SEEDS)
