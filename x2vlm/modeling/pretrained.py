"""`from_pretrained`, `save_pretrained` and `push_to_hub` for every model class."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from huggingface_hub import HfApi

from x2vlm.checkpoint import load, save_model
from x2vlm.known import DEFAULT
from x2vlm.settings import Settings


class Pretrained:
    """For `X2VLM` and for task models, which keep an `X2VLM` in `model`. A class brings
    `from_config`, which builds the X2VLM, and `_wrap`, which makes one of its own of it."""

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path = DEFAULT, **options: Any) -> Self:
        """Loads any checkpoint of the family.

        Args:
            path_or_name: file, folder, known name, or `owner/name` on the Hugging Face Hub.
            options: of `x2vlm.checkpoint.load`: image_size, num_frames, config, heads, device,
                dtype, allow_extra.

        Raises:
            CheckpointError: see `load`; also a task without its head (`ckpt/keys`).
        """
        return cls._wrap(load(path_or_name, cls.from_config, **options).model)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        tokenizer=None,
        card: str | None = None,
        dtype: torch.dtype | None = None,
        settings: Settings | None = None,
    ) -> Path:
        """Writes config.json, model.safetensors, README.md, tokenizer and settings; see
        `x2vlm.checkpoint.save_model`."""
        return save_model(
            getattr(self, "model", self), save_directory, tokenizer, card, dtype, settings
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        tokenizer=None,
        settings: Settings | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload model",
        **options: Any,
    ) -> str:
        """Saves and uploads in one go.

        Args:
            tokenizer: uploaded with the model; without it the model cannot read text.
            settings: uploaded as `predictor.json`: answers, thresholds and what else a Predictor
                must know.
            options: of `huggingface_hub.HfApi.upload_folder`.

        Returns:
            Address of the commit.
        """
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            target = Path(folder) / repo_id.rpartition("/")[2]
            saved = self.save_pretrained(target, tokenizer=tokenizer, settings=settings)
            commit = api.upload_folder(
                repo_id=repository, folder_path=saved, commit_message=commit_message, **options
            )
        return str(commit)
