"""Checkpoints: safe reading, conversion of official files, loading and saving."""

from x2vlm.checkpoint.loading import LoadedCheckpoint, load_model
from x2vlm.checkpoint.report import LoadReport
from x2vlm.checkpoint.saving import convert, official_state_dict, save_model

__all__ = ["LoadReport", "LoadedCheckpoint", "convert", "load_model", "official_state_dict", "save_model"]
