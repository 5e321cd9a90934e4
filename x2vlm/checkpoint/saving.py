"""Writes a model as a folder in the Hugging Face form: config.json, model.safetensors, tokenizer
files, README.md.

A folder appears complete or not at all; in a folder that exists, each file is replaced in one step.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from x2vlm.checkpoint.content import shown
from x2vlm.checkpoint.detect import Overrides
from x2vlm.checkpoint.digest import write_digest
from x2vlm.checkpoint.keys import official_name
from x2vlm.checkpoint.layout import layout_for, official_spelling
from x2vlm.checkpoint.loading import CONFIG, Build, load
from x2vlm.checkpoint.report import LoadReport
from x2vlm.checkpoint.source import WEIGHTS
from x2vlm.checkpoint.tokenizer import find_tokenizer, missing_note
from x2vlm.config import X2VLMConfig, size_text
from x2vlm.errors import CheckpointError
from x2vlm.settings import DOMAIN_FILE, SETTINGS_FILE, Settings

PREPROCESSOR = "preprocessor_config.json"
READ_BY = {"processor_class": "X2VLMProcessor"}
"""What AutoProcessor and the pipelines of transformers look for, see `x2vlm.hf`."""
CARD = """---
library_name: x2vlm
pipeline_tag: image-text-to-text
---
# {title}

An X²-VLM model ([arXiv 2211.12402](https://arxiv.org/abs/2211.12402))
with {millions:.0f} million parameters:
{tower} image tower at {size} px, {text} text layers, {fusion} fusion layers; heads: {heads}.

```python
from x2vlm import Predictor

predictor = Predictor.from_pretrained("path/to/this/folder")
```
"""


def save_model(
    model: nn.Module,
    directory: str | Path,
    tokenizer=None,
    card: str | None = None,
    dtype: torch.dtype | None = None,
    settings: Settings | None = None,
) -> Path:
    """Saves a model that `load` reads back.

    Args:
        tokenizer: a tokenizer of transformers, saved beside the weights.
        card: text of README.md; None writes a short one.
        dtype: of the stored weights, for example torch.float16; None keeps the model's.
        settings: what a Predictor must know beside the weights (`predictor.json`); None writes
            none.

    Returns:
        The folder.

    Raises:
        CheckpointError: weights that are not finite, also in `dtype` (`ckpt/values`), or no room or
            right to write (`ckpt/disk`). Nothing new is left behind then.
    """
    directory = Path(directory)
    draft = directory.parent / f".{directory.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        draft.mkdir(parents=True)
        save_file(_stored(model, dtype), draft / WEIGHTS, metadata={"format": "pt"})
        write_digest(draft)
        (draft / CONFIG).write_text(
            json.dumps(model.config.to_dict(), indent=2) + "\n", encoding="utf-8"
        )
        shutil.copymode(draft / CONFIG, draft / WEIGHTS)  # safetensors writes for its owner alone
        (draft / PREPROCESSOR).write_text(json.dumps(READ_BY) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(card or _card(model, directory.name), encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(str(draft))
        if settings is not None:
            settings.write(draft)
        _sync(draft)
        if not directory.exists():
            os.replace(draft, directory)
        else:
            for path in sorted(draft.iterdir()):
                os.replace(path, directory / path.name)
    except (OSError, SafetensorError):  # safetensors hides the system's errors in its own
        raise CheckpointError(
            f"The model cannot be written to {shown(directory.name)}. Check the folder, its "
            f"permissions and the room left.",
            "ckpt/disk",
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


def convert(
    source: str | Path,
    directory: str | Path,
    build: Build,
    *,
    tokenizer: str | Path | None = None,
    image_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    config: X2VLMConfig | Overrides | None = None,
    heads: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    allow_extra: bool = False,
) -> LoadReport:
    """Turns an official file into a folder that `from_pretrained` takes. A `predictor.json` beside
    the file comes along.

    Args:
        source: see `x2vlm.hub.resolve`.
        tokenizer: folder or vocabulary file; None looks beside the file, then for the public
            tokenizer of its family. Where none can be had, the report's notes say what to add.
        image_size, num_frames, config, heads, allow_extra: see `load`.
        dtype: of the stored weights, see `save_model`.

    Raises:
        CheckpointError: see `load`, `find_tokenizer` and `save_model`. ConfigError: see
            `x2vlm.settings.Settings.read`.
    """
    loaded = load(
        source,
        build,
        image_size=image_size,
        num_frames=num_frames,
        config=config,
        heads=heads,
        allow_extra=allow_extra,
        device="cpu",
    )
    found = find_tokenizer(loaded.config, loaded.tokenizer_dir, tokenizer)
    beside = loaded.path.parent
    settings = Settings.read(beside) if (beside / SETTINGS_FILE).is_file() else None
    save_model(loaded.model, directory, found, dtype=dtype, settings=settings)
    if (beside / DOMAIN_FILE).is_file():
        shutil.copy(beside / DOMAIN_FILE, directory)
    if found is not None:
        return loaded.report
    notes = (*loaded.report.notes, missing_note(loaded.config))
    return replace(loaded.report, notes=notes)


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the official names, for use with the official code (its constants
    are left out)."""
    layout = layout_for(model.config)
    return {
        official_spelling(key, layout): tensor
        for name, tensor in model.state_dict().items()
        if (key := official_name(name)) is not None
    }


def _stored(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every parameter once, under its first name, contiguous and finite. Two that share memory are
    stored apart, which safetensors asks for."""
    tensors, memory = {}, set()
    for name, parameter in model.named_parameters():
        tensor = parameter.detach().to("cpu", dtype or parameter.dtype).contiguous()
        if not all(bound.isfinite() for bound in tensor.aminmax()):
            raise CheckpointError(
                f"{name} is not finite{f' as {str(dtype)[6:]}' if dtype else ''}, so the model is "
                "not saved. Go back to an earlier state of the training, or store it as float32.",
                "ckpt/values",
            )
        shared = (place := tensor.untyped_storage().data_ptr()) in memory
        tensors[name] = tensor.clone() if shared else tensor
        memory.add(place)
    return tensors


def _card(model: nn.Module, title: str) -> str:
    config = model.config
    return CARD.format(
        title=title,
        millions=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        tower=config.vision.tower,
        size=size_text(config.vision.image_size),
        text=config.text.num_layers,
        fusion=config.fusion.num_layers,
        heads=", ".join(config.heads) or "none",
    )


def _sync(folder: Path) -> None:
    """Files to disk before they get their names."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
