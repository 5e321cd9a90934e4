"""One folder of recordings: `checkpoint.th` with official keys, `meta.json`, `cases.safetensors`,
`vocab.txt`."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from x2vlm.config import X2VLMConfig
from x2vlm.modeling.build import convert, load_model
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import load_tokenizer

IMAGES = ("image", "images", "video")
_CONVERTED: dict[tuple[str, int | None, int], tuple[X2VLMConfig, X2VLM]] = {}
"""Models by the hash of their checkpoint, the number of heads and the size of the images."""


class Case:
    """A folder's recordings and the model converted from its checkpoint.

    `case[name]` is a recorded input; what was read is remembered, so that an input nobody looks at
    is noticed.

    Args:
        heads: attention heads of text and fusion, for a width that 64 does not divide. The loader
            is told nothing else.
    """

    def __init__(self, folder: Path, heads: int | None = None):
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.recorded: dict[str, Tensor] = load_file(folder / "cases.safetensors")
        self.read: set[str] = set()
        self.hash = hashlib.sha256((folder / "checkpoint.th").read_bytes()).hexdigest()
        self.detected, self.model = self._convert(heads)

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.recorded[name]

    @property
    def kind(self) -> str:
        return self.meta["kind"]

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.folder)

    def _convert(self, heads: int | None) -> tuple[X2VLMConfig, X2VLM]:
        """What the checkpoint was found to be, and the model after a trip through a converted
        folder, at the size of the recorded images."""
        checkpoint, layers = self.folder / "checkpoint.th", {"num_heads": heads}
        told = {"text": layers, "fusion": layers} if heads else None
        images = next(self.recorded[name] for name in IMAGES if name in self.recorded)
        key = self.hash, heads, images.shape[-1]
        if key not in _CONVERTED:
            detected = load_model(checkpoint, config=told).config
            with tempfile.TemporaryDirectory() as folder:
                converted = Path(folder) / "converted"
                convert(checkpoint, converted, config=told, image_size=images.shape[-1])
                _CONVERTED[key] = detected, load_model(converted).model
        return _CONVERTED[key]

    def detected_architecture(self) -> dict[str, Any]:
        """`meta["architecture"]` as it follows from the checkpoint."""
        config, recorded = self.detected, self.meta["architecture"]
        vision, text, fusion = config.vision, config.text, config.fusion
        found: dict[str, Any] = {
            "vision": {
                "type": vision.tower,
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
            },
            "text": {
                "type": text.family,
                "hidden_size": text.hidden_size,
                "num_attention_heads": text.num_heads,
                "intermediate_size": text.intermediate_size,
                "num_layers": text.num_layers,
                "vocab_size": text.vocab_size,
                "max_position_embeddings": text.max_positions,
                "layer_norm_eps": text.layer_norm_eps,
                "type_vocab_size": text.type_vocab_size,
                "pad_token_id": text.pad_token_id,
            },
            "fusion": {
                "num_layers": fusion.num_layers,
                "hidden_size": text.hidden_size,
                "num_attention_heads": fusion.num_heads,
                "intermediate_size": fusion.intermediate_size,
                "layer_norm_eps": fusion.layer_norm_eps,
            },
        }
        if vision.tower == "swin":
            found["vision"] |= {
                "patch_embed_size": self.model.vision.tower.patch_embed.patch_size[0],
                "embed_dim": vision.swin_embed_dim,
                "depths": list(vision.swin_depths),
                "num_heads": list(vision.swin_num_heads),
                "window_size": vision.swin_window_size,
                "width": vision.hidden_size,
            }
        else:
            found["vision"] |= {
                "width": vision.hidden_size,
                "depth": vision.num_layers,
                "heads": vision.num_heads,
                "mlp_ratio": vision.mlp_ratio,
            }
        # A checkpoint without contrastive heads has nothing to show for the width of their
        # features.
        found["embed_dim"] = (
            config.projection_size if "contrastive" in config.heads else recorded.get("embed_dim")
        )
        if config.num_frames:
            found["video"] = {"frame_len": config.num_frames}
        if "answer_decoder" in config.heads:
            found["decoder"] = {"num_layers": config.decoder.num_layers}
        if "classification" in config.heads:
            found["num_answers"] = config.num_labels
        if (
            "checkpoint_image_size" in self.meta
        ):  # the recordings were made at another size than the checkpoint's
            found["vision"]["image_size"] = self.model.config.vision.image_size
        return found
