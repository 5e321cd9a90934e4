"""What a checkpoint's folder says about its use: `predictor.json` beside the weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from x2vlm.checks import check_number
from x2vlm.config import Few, Rate, read_values
from x2vlm.errors import ConfigError, ParameterError
from x2vlm.options import MapChoices

SETTINGS_FILE = "predictor.json"
DOMAIN_FILE = "domain.safetensors"
"""What the training images were like, see `x2vlm.inference.domain`."""


@dataclass(frozen=True)
class Settings:
    """What a checkpoint's `predictor.json` may say about its use. All of it is optional.

    Attributes:
        prompt: beginning of every caption, as in training.
        max_tokens: token budget of a text, `[CLS]` and `[SEP]` included.
        min_length: tokens before a caption may end.
        no_repeat_ngram_size: word pieces that a caption may not say twice in a row of that length;
            0 = no rule.
        absent, present: match probabilities below and from which a phrase is absent or found;
            chosen on validation data.
        answers: the list that questions are ranked over; for a `classification` head the labels in
            order.
        sure: probability below which the best of the `answers` is given as unsure; chosen on
            validation data, 0 = never.
        example: a question that the model understands, for who asked another.
        maps: the heat maps that point best, for every use.
        note: what the model knows and does not, for the user.
    """

    prompt: str = "a picture of"
    max_tokens: Annotated[int, (3, 65_536)] = 40
    min_length: Few = 5
    no_repeat_ngram_size: Few = 3
    absent: Rate = 0.2
    present: Rate = 0.5
    answers: tuple[str, ...] = ()
    sure: Rate = 0.0
    example: str = ""
    maps: MapChoices = field(default_factory=MapChoices)
    note: str = ""

    @classmethod
    def read(cls, folder: Path, default: Settings | None = None) -> Settings:
        """From `predictor.json` in a folder; where there is none, `default` or our defaults.

        Raises:
            ConfigError: not a JSON object (`config/syntax`), an unknown key (`config/key`) or a bad
                value (`config/value`).
        """
        if not (folder / SETTINGS_FILE).is_file():
            return default or cls()
        try:
            values = dict(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError):
            raise ConfigError(
                f"{SETTINGS_FILE} is not a JSON object. Repair it or remove it.", "config/syntax"
            ) from None
        return cls.from_dict(values)

    def write(self, folder: Path) -> None:
        """Into `predictor.json` of a model folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """`thresholds: {"absent": ..., "present": ...}` may stand for the two numbers. Raises as
        `read`."""
        values = dict(values)
        thresholds = values.pop("thresholds", {})
        if not isinstance(thresholds, Mapping):
            raise ConfigError(
                f"thresholds in {SETTINGS_FILE} must be a block with the keys absent and present.",
                "config/value",
            )
        settings = read_values(cls, {**values, **thresholds}, SETTINGS_FILE)
        if settings.absent > settings.present:
            raise ConfigError(
                f"absent in {SETTINGS_FILE} is above present. Exchange them.", "config/value"
            )
        return settings


XVLM_CAPTIONING = Settings(min_length=1, no_repeat_ngram_size=0)
"""How X-VLM's captioning file is used where no `predictor.json` says more."""


def check_thresholds(thresholds: tuple[float, float]) -> tuple[float, float]:
    """(absent, present), 0 <= absent <= present <= 1.

    Raises:
        ParameterError: they are not (`param/range`).
    """
    try:
        absent, present = thresholds
    except (TypeError, ValueError):
        raise ParameterError(
            "Thresholds are two match probabilities: (absent, present).", "param/range"
        ) from None
    absent = check_number("The absent threshold", absent, 0, 1, whole=False)
    return absent, check_number("The present threshold", present, absent, 1, whole=False)
