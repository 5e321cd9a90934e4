"""Checkpoints: safe reading, conversion of official files, loading, saving, and starting weights
for training."""

from x2vlm.checkpoint.initialize import initialize, initialize_answer_decoder
from x2vlm.checkpoint.loading import LoadedCheckpoint, load_model
from x2vlm.checkpoint.report import LoadReport
from x2vlm.checkpoint.saving import convert, official_state_dict, save_model

__all__ = [
    "LoadReport",
    "LoadedCheckpoint",
    "convert",
    "initialize",
    "initialize_answer_decoder",
    "load_model",
    "official_state_dict",
    "save_model",
]
