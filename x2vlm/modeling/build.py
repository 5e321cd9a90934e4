"""Models from a configuration, and from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from x2vlm import checkpoint
from x2vlm.checkpoint import LoadedCheckpoint, LoadReport
from x2vlm.config import X2VLMConfig
from x2vlm.modeling.x2vlm import X2VLM


def build_model(config: X2VLMConfig) -> X2VLM:
    """A model with fresh weights."""
    return X2VLM.from_config(config)


def load_model(path_or_name: str | Path, **options: Any) -> LoadedCheckpoint[X2VLM]:
    """`x2vlm.checkpoint.load` with our models; raises as it does."""
    return checkpoint.load(path_or_name, build_model, **options)


def convert(source: str | Path, directory: str | Path, **options: Any) -> LoadReport:
    """`x2vlm.checkpoint.convert` with our models; raises as it does."""
    return checkpoint.convert(source, directory, build_model, **options)
