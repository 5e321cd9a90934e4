"""The models behind a Predictor: one checkpoint with every head, or one checkpoint per task, and
what each can do."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from x2vlm import hub
from x2vlm.checkpoint.tokenizer import find_tokenizer, missing_note
from x2vlm.checks import check_choice
from x2vlm.errors import CheckpointError, ConfigError, ParameterError, TextError, X2VLMError
from x2vlm.inference.domain import Domain
from x2vlm.modeling.build import load_model
from x2vlm.modeling.cpu_linear import pack_linears
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.options import TASKS, USES
from x2vlm.processing import Processor
from x2vlm.results import ModelInfo
from x2vlm.settings import SETTINGS_FILE, XVLM_CAPTIONING, Settings
from x2vlm.texts import validate_text

DEFAULT_FRAMES = 8
"""Frames of a video for a model that was trained on images."""
FLOAT32_PARTS = (
    "matching_head",
    "box_head",
    "dense_box_head",
    "image_projection",
    "text_projection",
)
"""Small heads stay float32 in a bfloat16 model: eight bits would move a box by two pixels."""


@dataclass(frozen=True, eq=False)
class Member:
    """One loaded model of a suite, frozen and in evaluation mode.

    Attributes:
        left_out: weights of its file that it has no place for, left out on request.
    """

    name: str
    hash: str
    model: X2VLM
    processor: Processor
    settings: Settings
    domain: Domain | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        fusion = self.model.config.fusion
        for use in USES:
            choice = getattr(self.settings.maps, use)
            try:
                choice.check(fusion.num_layers, fusion.num_heads)
            except ParameterError as error:
                raise ConfigError(
                    f"maps.{use} in {SETTINGS_FILE}: {error.message}", "config/value"
                ) from None

    @property
    def device(self) -> torch.device:
        return self.model.text_encoder.embeddings.words.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.text_encoder.embeddings.words.weight.dtype

    @property
    def answers(self) -> tuple[str, ...]:
        """The list that questions are ranked over, empty where there is none; of a closed list all
        its labels.

        Raises:
            ConfigError: the labels of a closed list are not known (`config/value`).
        """
        config, listed = self.model.config, self.settings.answers
        if "answer_decoder" not in config.heads and len(listed) != config.num_labels:
            raise ConfigError(
                f"This model chooses from {config.num_labels} labels and {SETTINGS_FILE} names "
                f"{len(listed)}. Put all of them, in order, into {SETTINGS_FILE} as `answers`.",
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
        # One token more than the decoder reads shows which answers are too long.
        ids, mask = self.processor.text(answers, max_tokens=room + 1)
        if ids.shape[1] > room:
            raise TextError(
                f"An answer exceeds the {room} tokens that the model reads. Shorten it.",
                "text/long",
            )
        if int(mask.sum(1).min()) < 3:
            raise TextError(
                "An answer has no words in it. Write it in letters or digits.", "text/empty"
            )
        return ids.to(self.device), mask.to(self.device)


@contextmanager
def gpu_memory() -> Iterator[None]:
    """What runs inside, or is decorated with `@gpu_memory()`, may need more memory than the GPU
    has.

    Raises:
        X2VLMError: it did (`device/memory`).
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise X2VLMError(
            "The GPU has too little free memory. Use dtype bfloat16, a smaller model, or the "
            "device cpu.",
            "device/memory",
        ) from None


@gpu_memory()
def load_member(
    name_or_path: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: hub.Progress | None,
    allow_extra: bool = False,
) -> Member:
    """A checkpoint with its tokenizer and settings, ready for a Predictor.

    Raises:
        CheckpointError: see `x2vlm.checkpoint.load`; no tokenizer (`ckpt/source`).
            ConfigError: bad settings.
        X2VLMError: it does not fit on the device (`device/memory`).
    """
    loaded = load_model(name_or_path, progress=progress, allow_extra=allow_extra)
    default = XVLM_CAPTIONING if loaded.config.causal else None
    settings = Settings.read(loaded.path.parent, default)
    tokenizer = find_tokenizer(loaded.config, loaded.tokenizer_dir)
    if tokenizer is None:
        note = missing_note(loaded.config)
        raise CheckpointError(f"{note[0].upper()}{note[1:]}.", "ckpt/source")
    processor = Processor(loaded.config, tokenizer, settings.max_tokens)
    return Member(
        Path(str(name_or_path)).name,
        loaded.sha256[:12],
        prepare(loaded.model, device, dtype),
        processor,
        settings,
        Domain.read(loaded.path.parent),
        loaded.report.unexpected,
    )


def load_suite(
    name_or_path: str | Path | Mapping[str, str | Path],
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    progress: hub.Progress | None,
    allow_extra: bool = False,
) -> tuple[list[Member], dict[str, Member]]:
    """The models, and which one was named for which task; see `Predictor.from_pretrained`.

    Raises:
        ParameterError: unknown device, dtype or task (`param/range`).
    """
    device, dtype = pick_device(device), pick_dtype(dtype)
    if not isinstance(name_or_path, Mapping):
        return [load_member(name_or_path, device, dtype, progress, allow_extra)], {}
    if not name_or_path or set(name_or_path) - set(TASKS):
        raise ParameterError(
            f"A suite maps tasks to checkpoints. Tasks: {', '.join(TASKS)}.", "param/range"
        )
    loaded = {
        source: load_member(source, device, dtype, progress, allow_extra)
        for source in dict.fromkeys(name_or_path.values())
    }
    return list(loaded.values()), {task: loaded[source] for task, source in name_or_path.items()}


def prepare(model: X2VLM, device: torch.device, dtype: torch.dtype) -> X2VLM:
    """Freezes a model for inference, in place; its small heads stay float32."""
    model.requires_grad_(False).eval().to(device)
    for name, child in model.named_children():
        child.to(torch.float32 if name in FLOAT32_PARTS else dtype)
    if model.frame_positions is not None:
        model.frame_positions.data = model.frame_positions.data.to(dtype)
    if device.type == "cpu":
        pack_linears(model)
    return model


def assign_tasks(
    members: Sequence[Member], named: Mapping[str, Member]
) -> tuple[dict[str, Member], dict[str, str]]:
    """Which model serves which task, and task -> reason for those that none can serve.

    Args:
        named: the caller's choice; a task that is not in it goes to the first model that has a head
            for it.

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
        image_size=config.vision.size,
        grid_size=config.vision.grid_size,
        num_frames=config.num_frames or DEFAULT_FRAMES,
        num_layers=config.fusion.num_layers,
        num_heads=config.fusion.num_heads,
        thresholds=(first.settings.absent, first.settings.present),
        note=first.settings.note,
        example=first.settings.example,
        left_out=tuple(key for member in members for key in member.left_out),
    )


def _lacks(member: Member, task: str) -> str | None:
    """Why a model cannot serve a task, None if it can."""
    config = member.model.config
    if task == "video":
        return (
            None
            if config.num_frames
            else "This checkpoint was trained on pictures; a video is the mean of its frames."
        )
    if set(TASKS[task]) & set(config.heads):
        return None
    return f"This checkpoint has no {TASKS[task][0].replace('_', ' ')} head."


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
            f"There is no device {str(device)[:40]!r} here. Use cpu, or cuda with a GPU.",
            "param/range",
        ) from None
    return found


def pick_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """float32 unless something else is asked for. Raises as `pick_device`."""
    name = str(dtype or "float32").removeprefix("torch.")
    return getattr(torch, check_choice("dtype", name, ("float32", "bfloat16", "float16")))
