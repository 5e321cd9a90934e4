"""Loads a model from any checkpoint of the family: official X2-VLM, X-VLM and CCLM files, and
folders that `save_model` wrote.

Strict: every tensor of the file is matched, renamed by the table, resized by rule, or named in the
report, and a model is never left half loaded. Weights stay memory-mapped where the file allows it,
so loading needs little memory beyond the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from x2vlm import hub
from x2vlm.checkpoint.content import shown
from x2vlm.checkpoint.detect import (
    Overrides,
    check_grid,
    detect_config,
    head_of,
    heads_in,
    merge_overrides,
)
from x2vlm.checkpoint.digest import verify
from x2vlm.checkpoint.parameters import first_tensor, fit_tensor, parameter_slots
from x2vlm.checkpoint.report import LoadReport
from x2vlm.checkpoint.source import files_of, read_source, weights_file
from x2vlm.checkpoint.tokenizer import has_tokenizer
from x2vlm.checkpoint.translate import Translated, translate
from x2vlm.config import VisionConfig, X2VLMConfig, sides
from x2vlm.errors import CheckpointError

Model = TypeVar("Model", bound=nn.Module)
Build = Callable[[X2VLMConfig], Model]
"""Makes a model with fresh weights of a configuration, which it keeps as `config`."""
CONFIG = "config.json"
OPTIONAL = ("temperature", "frame_positions")
"""Parameters that a complete file may lack: a fixed temperature is not stored, and images need no
frame positions."""


@dataclass(frozen=True)
class LoadedCheckpoint(Generic[Model]):
    """A model and where it came from.

    Attributes:
        path: the weights file, or the index of several.
        tokenizer_dir: folder with its tokenizer files, None if there are none beside it.
    """

    model: Model
    report: LoadReport
    path: Path
    tokenizer_dir: Path | None

    @property
    def config(self) -> X2VLMConfig:
        return self.model.config

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the weights, read when first asked for."""
        return hub.sha256_of(*files_of(self.path))


def load(
    path_or_name: str | Path,
    build: Build[Model],
    *,
    image_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    config: X2VLMConfig | Overrides | None = None,
    heads: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    allow_extra: bool = False,
    progress: hub.Progress | None = None,
) -> LoadedCheckpoint[Model]:
    """Reads a checkpoint into a model in evaluation mode.

    Args:
        path_or_name: see `x2vlm.hub.resolve`.
        image_size: pixels per side to run at, or (height, width); position tables are resized.
            None: as trained.
        num_frames: frame positions to have; None: as trained.
        config: what shapes cannot tell, nested as in config.json (`{"text": {"num_heads": 6}}`), or
            a whole configuration.
        heads: heads to build, None for those in the file. A head that the file lacks starts fresh
            and is listed.
        dtype: of all parameters.
        allow_extra: True leaves out weights that no rule knows, such as heads of other tasks,
            queues and momentum copies, and lists them in the report; False refuses the file.
        progress: called while a known file is downloaded.

    Raises:
        CheckpointError: see `x2vlm.hub.resolve` and `x2vlm.checkpoint.safe_load`; missing or
            unknown weights (`ckpt/keys`), sizes that do not fit (`ckpt/shape`), numbers that are
            not finite (`ckpt/values`).
        ConfigError: a bad override.
    """
    weights, translated = _open(path_or_name, progress)
    overrides = {} if config is None or isinstance(config, X2VLMConfig) else dict(config)
    stored = weights.parent / CONFIG
    try:
        if isinstance(config, X2VLMConfig):
            final = config
        elif translated.ours and stored.is_file():
            final = merge_overrides(read_config(stored), overrides)
        else:
            final = detect_config(translated, overrides)
        trained, final = final.vision, _adjust(final, image_size, num_frames, heads)
        check_grid(final.vision)
        if final.fusion.twin_layers and not translated.layout.twin_fusion:
            translated = _twinned(translated, final.fusion.num_layers)
        model, report = _assemble(build, final, trained, translated, weights.name, allow_extra)
    except CheckpointError as error:
        if translated.ours and config is None and not stored.is_file():
            raise CheckpointError(
                f"There is no {CONFIG} beside {shown(weights.name)}, and its weights alone do not "
                f"tell what belongs there. Put the {CONFIG} of the saved model into the folder.",
                "ckpt/source",
            ) from error
        raise
    model.to(device=device, dtype=dtype).eval()
    return LoadedCheckpoint(
        model, report, weights, weights.parent if has_tokenizer(weights.parent) else None
    )


def read_config(path: Path) -> X2VLMConfig:
    """A config.json.

    Raises:
        CheckpointError: not JSON (`ckpt/damaged`). ConfigError: unknown keys or bad values.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(
            f"{CONFIG} is not a readable JSON object. Save or convert the model again.",
            "ckpt/damaged",
        ) from None
    return X2VLMConfig.from_dict(values)


def _open(
    path_or_name: str | Path, progress: hub.Progress | None = None
) -> tuple[Path, Translated]:
    """The weights file of a checkpoint and its tensors under our names."""
    weights = weights_file(hub.resolve(path_or_name, progress))
    if weights.parent in map(hub.bundled_dir, hub.BUNDLED):
        verify(weights.parent)
    try:
        return weights, translate(read_source(weights), weights.name)
    except CheckpointError as error:
        if weights.parent == hub.cache_dir() and error.code in ("ckpt/damaged", "ckpt/format"):
            # It would be found here again and again.
            raise CheckpointError(
                f"{error.message} First delete {hub.shown_place(weights.name)}.", error.code
            ) from None
        raise


def translated_tensors(path_or_name: str | Path) -> dict[str, Tensor]:
    """A checkpoint's tensors under our names, whatever their sizes; constants left out. Raises as
    `load` does."""
    return _open(path_or_name)[1].state


def _twinned(translated: Translated, layers: int) -> Translated:
    """Every fusion layer twice where the file has each once: X-VLM's NLVR2 starts so from an
    ordinary model."""
    stem = "fusion_encoder.layers."
    own = {name: t for name, t in translated.state.items() if name.startswith(stem)}
    numbers = {int(name.removeprefix(stem).partition(".")[0]) for name in own}
    if numbers != set(range(layers)):
        return translated
    state = {name: t for name, t in translated.state.items() if name not in own}
    renamed = {key: name for key, name in translated.renamed.items() if name not in own}
    for name, tensor in own.items():
        number, _, rest = name.removeprefix(stem).partition(".")
        for twin in (0, 1):
            state[f"{stem}{2 * int(number) + twin}.{rest}"] = tensor
    return replace(translated, state=state, renamed=renamed)


def _adjust(
    config: X2VLMConfig,
    image_size: int | Sequence[int] | None,
    num_frames: int | None,
    heads: Sequence[str] | None,
) -> X2VLMConfig:
    """The caller's image size, frames and heads. Swin's window grows with the image where it was a
    fixed share of it."""
    vision = config.vision
    if image_size is not None and sides(image_size) != vision.size:
        window = vision.swin_window_size
        if vision.tower == "swin" and vision.grid_size == (window, window):
            window = min(sides(image_size)) // vision.patch_size
        config = config.replace(
            vision=replace(vision, image_size=image_size, swin_window_size=window)
        )
    if num_frames is not None:
        config = config.replace(num_frames=num_frames)
    return config if heads is None else config.replace(heads=tuple(heads))


def _assemble(
    build: Build[Model],
    config: X2VLMConfig,
    trained: VisionConfig,
    translated: Translated,
    file: str,
    allow_extra: bool,
) -> tuple[Model, LoadReport]:
    """Builds the model around the file's tensors, which come from a tower as `trained`."""
    state, present = translated.state, heads_in(translated.state)
    keys = {name: key for key, name in translated.renamed.items()}
    with WithoutMatrices():
        model = build(config)
    slots = parameter_slots(model)
    known = {name for slot in slots for name in slot.names}
    ignored, unexpected = _sort_unknown(config, translated, state.keys() - known, keys)
    missing = [slot.name for slot in slots if not slot.names & state.keys()]
    _check_complete(translated, file, missing, () if allow_extra else unexpected)

    tensors, resized = {}, {}
    regridded = trained.grid_size != config.vision.grid_size
    computed = {slot.name for slot in slots if regridded and not slot.parameter.requires_grad}
    for slot in slots:
        if slot.name not in missing:
            tensors[slot.name] = fit_tensor(slot, state, file, (trained, config.vision), keys)
            shapes = tuple(first_tensor(slot, state).shape), tuple(slot.parameter.shape)
            if shapes[0] != shapes[1]:
                resized[slot.name] = shapes
    # New heads and frames start random, sine positions of another size are computed: that takes a
    # model with memory.
    if missing or any(
        slot.name in computed
        or (slot.name in tensors and tensors[slot.name].shape != slot.parameter.shape)
        for slot in slots
    ):
        model = build(config)
        slots = parameter_slots(model)
    for slot in slots:
        if slot.name in tensors.keys() - computed:
            slot.fill(tensors.pop(slot.name))
    return model, LoadReport(
        matched=tuple(sorted((known & state.keys()) - keys.keys())),
        renamed={key: name for name, key in keys.items()},
        resized=resized,
        ignored=ignored,
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        heads=tuple(head for head in config.heads if head in present),
        missing_heads=tuple(head for head in config.heads if head not in present),
        notes=translated.notes,
    )


def _sort_unknown(
    config: X2VLMConfig, translated: Translated, names: set[str], keys: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """What is ignored and why, and what nobody knows, by the file's keys; `names` have no place in
    the model and leave `keys`."""
    present = heads_in(translated.state)
    ignored, unexpected = dict(translated.ignored), list(translated.unexpected)
    for name in [name for name in translated.state if name in names]:
        if reason := _unwanted(name, config, present):
            ignored[keys.pop(name, name)] = reason
        else:
            unexpected.append(keys.pop(name, name))
    return ignored, unexpected


def _check_complete(
    translated: Translated, file: str, missing: Sequence[str], unexpected: Sequence[str]
) -> None:
    """Raises:
    CheckpointError: unexpected keys, or missing ones that the model needs (`ckpt/keys`).
    """
    if unexpected:
        what = "holds weights that no X2-VLM, X-VLM or CCLM model has"
        hint = "To leave them out, load it with allow_extra=True (--allow-extra)."
        raise _keys_error(file, what, unexpected, hint)
    present = (None, *heads_in(translated.state))
    essential = [name for name in missing if name not in OPTIONAL and head_of(name) in present]
    if essential:
        lacking = [translated.key_of(name) for name in essential]
        hint = "Check that it is a checkpoint of this family and complete."
        raise _keys_error(file, "lacks weights that the model needs", lacking, hint)


def _unwanted(name: str, config: X2VLMConfig, present: Sequence[str]) -> str | None:
    """Why a tensor of a known part has no place in this model; None if the part is unknown."""
    head = head_of(name)
    if head is not None and head not in present:
        return "temperature without projections"
    if head is not None and head not in config.heads:
        return "head that was not asked for"
    return "frame positions that were not asked for" if name == "frame_positions" else None


def _keys_error(file: str, what: str, keys: Sequence[str], hint: str) -> CheckpointError:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    listed = ", ".join(shown(key) for key in keys[:3]) + more
    return CheckpointError(f"{shown(file)} {what}: {listed}. {hint}", "ckpt/keys")


class WithoutMatrices(TorchFunctionMode):
    """Inside it, new matrices take no memory: they are on the meta device. Vectors and buffers are
    real, since towers compute constants on the device of a LayerNorm's weight."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.empty and kwargs.get("dtype") in (None, torch.float32):
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            if len(size) > 1:
                kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)
