"""The models behind a Predictor: one checkpoint with every head, or one checkpoint per task, and what each can do."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from x2vlm import hub
from x2vlm.checkpoint import load_model
from x2vlm.checkpoint.tokenizer import find_tokenizer, missing_note
from x2vlm.checks import check_choice, check_number
from x2vlm.config import Few, Rate, read_values
from x2vlm.errors import CheckpointError, ConfigError, ParameterError, TextError, X2VLMError
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import Processor, validate_text
from x2vlm.results import ModelInfo

DEFAULT_FRAMES = 8
"""Frames of a clip for a model that was trained on pictures."""
SETTINGS_FILE = "predictor.json"
TASK_HEADS = {
    "caption": ("masked_lm",),
    "answer": ("answer_decoder", "classification"),
    "ground": ("box",),
    "explain": ("matching", "box", "masked_lm", "answer_decoder", "classification"),
    "match": ("matching", "contrastive"),
    "complete": ("masked_lm",),
    "describe_region": ("masked_lm", "matching", "contrastive"),
}
"""Which heads serve a task; one of them is enough."""
TASKS = (*TASK_HEADS, "video")
FLOAT32_PARTS = ("matching_head", "box_head", "image_projection", "text_projection")
"""Small heads stay float32 in a bfloat16 model: eight bits would move a box by two pixels."""


@dataclass(frozen=True)
class Settings:
    """What a checkpoint's `predictor.json` may say about its use. All of it is optional.

    Attributes:
        prompt: beginning of every caption, as in training.
        max_tokens: token budget of a text, `[CLS]` and `[SEP]` included.
        min_length: tokens before a caption may end.
        no_repeat_ngram_size: word pieces that a caption may not say twice in a row of that length; 0 = no rule.
        absent, present: match probabilities below and from which a phrase is absent or found; chosen on validation data.
        answers: the list that questions are ranked over; for a `classification` head the labels in order.
        explain_layer: fusion layer whose maps point best, from 0; None for the mean of all.
        note: what the model knows and does not, for the user.
    """

    prompt: str = "a picture of"
    max_tokens: Annotated[int, (3, 65_536)] = 40
    min_length: Few = 5
    no_repeat_ngram_size: Few = 3
    absent: Rate = 0.2
    present: Rate = 0.5
    answers: tuple[str, ...] = ()
    explain_layer: Few | None = None
    note: str = ""

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """From `predictor.json` in a folder, the defaults where there is none.

        Raises:
            ConfigError: not a JSON object (`config/syntax`), an unknown key (`config/key`) or a bad value (`config/value`).
        """
        if not (folder / SETTINGS_FILE).is_file():
            return cls()
        try:
            values = dict(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError):
            raise ConfigError(f"{SETTINGS_FILE} is not a JSON object. Repair it or remove it.", "config/syntax") from None
        return cls.from_dict(values)

    def write(self, folder: Path) -> None:
        """Into `predictor.json` of a model folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """`thresholds: {"absent": ..., "present": ...}` may stand for the two numbers. Raises as `read`."""
        values = dict(values)
        thresholds = values.pop("thresholds", {})
        if not isinstance(thresholds, Mapping):
            raise ConfigError(
                f"thresholds in {SETTINGS_FILE} must be a block with the keys absent and present.", "config/value"
            )
        settings = read_values(cls, {**values, **thresholds}, SETTINGS_FILE)
        if settings.absent > settings.present:
            raise ConfigError(f"absent in {SETTINGS_FILE} is above present. Exchange them.", "config/value")
        return settings


def check_thresholds(thresholds: tuple[float, float]) -> tuple[float, float]:
    """(absent, present), 0 <= absent <= present <= 1.

    Raises:
        ParameterError: they are not (`param/range`).
    """
    try:
        absent, present = thresholds
    except (TypeError, ValueError):
        raise ParameterError("Thresholds are two match probabilities: (absent, present).", "param/range") from None
    absent = check_number("The absent threshold", absent, 0, 1, whole=False)
    return absent, check_number("The present threshold", present, absent, 1, whole=False)


@dataclass(frozen=True, eq=False)
class Member:
    """One loaded model of a suite, frozen and in evaluation mode."""

    name: str
    hash: str
    model: X2VLM
    processor: Processor
    settings: Settings

    def __post_init__(self):
        layer, layers = self.settings.explain_layer, self.model.config.fusion.num_layers
        if layer is not None and layer >= layers:
            raise ConfigError(
                f"explain_layer in {SETTINGS_FILE} is {layer}; this model's fusion layers are 0 to {layers - 1}.",
                "config/value",
            )

    @property
    def device(self) -> torch.device:
        return self.model.text_encoder.embeddings.words.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.text_encoder.embeddings.words.weight.dtype

    @property
    def answers(self) -> tuple[str, ...]:
        """The list that questions are ranked over, empty where there is none; of a closed list all its labels.

        Raises:
            ConfigError: the labels of a closed list are not known (`config/value`).
        """
        config, listed = self.model.config, self.settings.answers
        if "answer_decoder" not in config.heads and len(listed) != config.num_labels:
            raise ConfigError(
                f"This model chooses from {config.num_labels} labels and {SETTINGS_FILE} names {len(listed)}. "
                f"Put all of them, in order, into {SETTINGS_FILE} as `answers`.",
                "config/value",
            )
        return listed

    def answer_tensors(self, answers: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """ids, mask int64[A, T], kept for the lists used last.

        Raises:
            TextError: an answer that cannot be read, or not whole (`text/*`).
        """
        for answer in answers:
            validate_text(answer, "answer")
        return self._kept_tensors(answers)

    @functools.cached_property
    def _kept_tensors(self):
        return functools.lru_cache(maxsize=8)(self._answer_tensors)

    def _answer_tensors(self, answers: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        room = self.model.config.decoder.max_positions
        ids, mask = self.processor.text(answers, max_tokens=room + 1)  # one more than it reads shows what is too long
        if ids.shape[1] > room:
            raise TextError(f"An answer exceeds the {room} tokens that the model reads. Shorten it.", "text/long")
        if int(mask.sum(1).min()) < 3:
            raise TextError("An answer has no words in it. Write it in letters or digits.", "text/empty")
        return ids.to(self.device), mask.to(self.device)


@contextmanager
def gpu_memory() -> Iterator[None]:
    """What runs inside, or is decorated with `@gpu_memory()`, may need more memory than the GPU has.

    Raises:
        X2VLMError: it did (`device/memory`).
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise X2VLMError(
            "The GPU has too little free memory. Use dtype bfloat16, a smaller model, or the device cpu.", "device/memory"
        ) from None


@gpu_memory()
def load_member(name_or_path: str | Path, device: torch.device, dtype: torch.dtype, progress: hub.Progress | None) -> Member:
    """A checkpoint with its tokenizer and settings, ready for a Predictor.

    Raises:
        CheckpointError: see `x2vlm.checkpoint.load_model`; no tokenizer (`ckpt/source`). ConfigError: bad settings.
        X2VLMError: it does not fit on the device (`device/memory`).
    """
    loaded = load_model(name_or_path, progress=progress)
    settings = Settings.read(loaded.path.parent)
    tokenizer = find_tokenizer(loaded.config, loaded.tokenizer_dir)
    if tokenizer is None:
        note = missing_note(loaded.config)
        raise CheckpointError(f"{note[0].upper()}{note[1:]}.", "ckpt/source")
    processor = Processor(loaded.config, tokenizer, settings.max_tokens)
    return Member(Path(str(name_or_path)).name, loaded.sha256[:12], prepare(loaded.model, device, dtype), processor, settings)


def prepare(model: X2VLM, device: torch.device, dtype: torch.dtype) -> X2VLM:
    """Freezes a model for inference, in place; its small heads stay float32."""
    model.requires_grad_(False).eval().to(device)
    for name, child in model.named_children():
        child.to(torch.float32 if name in FLOAT32_PARTS else dtype)
    if model.frame_positions is not None:
        model.frame_positions.data = model.frame_positions.data.to(dtype)
    return model


def assign_tasks(members: Sequence[Member], named: Mapping[str, Member]) -> tuple[dict[str, Member], dict[str, str]]:
    """Which model serves which task, and task -> reason for those that none can serve.

    Args:
        named: the caller's choice; a task that is not in it goes to the first model that has a head for it.

    Raises:
        CheckpointError: a model named for a task cannot do it (`ckpt/keys`).
    """
    serving, missing = {}, {}
    for task in TASKS:
        reasons = [_lacks(member, task) for member in members]
        if task in named and (reason := _lacks(named[task], task)):
            raise CheckpointError(f"{named[task].name} cannot serve {task}. {reason}", "ckpt/keys")
        if None in reasons:
            serving[task] = named.get(task, members[reasons.index(None)])
        else:
            missing[task] = reasons[0]
    return serving, missing


def describe_suite(members: Sequence[Member]) -> ModelInfo:
    """What a Predictor over these models runs on; sizes and settings are those of the first."""
    first, words = members[0], members[0].model.text_encoder.embeddings.words.weight
    config = first.model.config
    return ModelInfo(
        name=first.name,
        hash=first.hash,
        device=str(words.device),
        dtype=str(words.dtype).removeprefix("torch."),
        parameters=sum(p.numel() for member in members for p in member.model.parameters()),
        image_size=config.vision.image_size,
        grid_size=config.vision.grid_size,
        num_frames=config.num_frames or DEFAULT_FRAMES,
        num_layers=config.fusion.num_layers,
        num_heads=config.fusion.num_heads,
        thresholds=(first.settings.absent, first.settings.present),
        note=first.settings.note,
    )


def _lacks(member: Member, task: str) -> str | None:
    """Why a model cannot serve a task, None if it can."""
    config = member.model.config
    if task == "video":
        return None if config.num_frames else "This checkpoint was trained on pictures; a clip is the mean of its frames."
    if set(TASK_HEADS[task]) & set(config.heads):
        return None
    return f"This checkpoint has no {TASK_HEADS[task][0].replace('_', ' ')} head."


def pick_device(device: str | torch.device | None) -> torch.device:
    """The first GPU if there is one and nothing else is asked for.

    Raises:
        ParameterError: no such device here (`param/range`).
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise ParameterError(
            f"There is no device {str(device)[:40]!r} here. Use cpu, or cuda with a GPU.", "param/range"
        ) from None
    return found


def pick_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """float32 unless something else is asked for. Raises as `pick_device`."""
    name = str(dtype or "float32").removeprefix("torch.")
    return getattr(torch, check_choice("dtype", name, ("float32", "bfloat16", "float16")))
