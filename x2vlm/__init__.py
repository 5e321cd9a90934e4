"""X²-VLM: multi-grained vision-language models, from training to a demo that shows its reasons.

The public names are loaded when they are first used, so that `import x2vlm` alone stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Predictor": "x2vlm.inference.predictor",
    "Scene": "x2vlm.inference.scene",
    "Frames": "x2vlm.inference.scene",
    "Settings": "x2vlm.settings",
    "CaptionOptions": "x2vlm.options",
    "AnswerOptions": "x2vlm.options",
    "ExplainOptions": "x2vlm.options",
    "DeletionOptions": "x2vlm.options",
    "X2VLM": "x2vlm.modeling.x2vlm",
    "X2VLMConfig": "x2vlm.config",
    "VisionConfig": "x2vlm.config",
    "TextConfig": "x2vlm.config",
    "FusionConfig": "x2vlm.config",
    "DecoderConfig": "x2vlm.config",
    "PRESETS": "x2vlm.presets",
    "X2VLMForPretraining": "x2vlm.modeling.pretraining",
    "X2VLMForRetrieval": "x2vlm.modeling.retrieval",
    "X2VLMForCaptioning": "x2vlm.modeling.captioning",
    "X2VLMForQuestionAnswering": "x2vlm.modeling.vqa",
    "X2VLMForGrounding": "x2vlm.modeling.grounding",
    "X2VLMForPairReasoning": "x2vlm.modeling.classification",
    "X2VLMForClassification": "x2vlm.modeling.classification",
    "Processor": "x2vlm.processing",
    "build_model": "x2vlm.modeling.build",
    "load_model": "x2vlm.modeling.build",
    "save_model": "x2vlm.checkpoint",
    "convert": "x2vlm.modeling.build",
    "open_image": "x2vlm.media",
    "open_video": "x2vlm.media",
    "X2VLMError": "x2vlm.errors",
    "MediaError": "x2vlm.errors",
    "TextError": "x2vlm.errors",
    "ParameterError": "x2vlm.errors",
    "CheckpointError": "x2vlm.errors",
    "ConfigError": "x2vlm.errors",
    "DataError": "x2vlm.errors",
    "Cancelled": "x2vlm.errors",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
