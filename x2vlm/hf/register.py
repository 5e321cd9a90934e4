"""Puts our classes into the tables of transformers."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)
from transformers.models.auto import modeling_auto

from x2vlm.hf import modeling_x2vlm as ours

TASKS = {
    AutoModelForZeroShotObjectDetection: (
        ours.X2VLMForZeroShotObjectDetection,
        modeling_auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
    ),
    AutoModelForZeroShotImageClassification: (
        ours.X2VLMForZeroShotImageClassification,
        modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ),
    AutoModelForImageTextToText: (
        ours.X2VLMForImageTextToText,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    ),
}
"""Class of transformers -> ours, and the names that its pipeline knows."""


def register() -> None:
    """Register configuration, models and processors; a second call changes nothing."""
    config = ours.X2VLMConfig
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, ours.X2VLMModel, exist_ok=True)
    AutoProcessor.register(config, ours.X2VLMProcessor, exist_ok=True)
    images = dict.fromkeys(("pil", "torchvision"), ours.X2VLMImageProcessor)
    AutoImageProcessor.register(config, image_processor_classes=images, exist_ok=True)
    for auto, (model, names) in TASKS.items():
        auto.register(config, model, exist_ok=True)
        names[config.model_type] = model.__name__
