"""Checkpoints: safe reading, conversion of official files, loading, saving, and starting weights
for training."""

from x2vlm.checkpoint.initialize import initialize, initialize_answer_decoder
from x2vlm.checkpoint.loading import Build, LoadedCheckpoint, load
from x2vlm.checkpoint.report import LoadReport
from x2vlm.checkpoint.saving import convert, official_state_dict, save_model

__all__ = [
    "Build",
    "LoadReport",
    "LoadedCheckpoint",
    "convert",
    "initialize",
    "initialize_answer_decoder",
    "load",
    "official_state_dict",
    "save_model",
]
