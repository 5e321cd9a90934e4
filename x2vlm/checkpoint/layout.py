"""How an official file lays out its text side, told from its keys, and the canonical spelling that
all layouts share.

Official files differ in spelling: `bert.` or `roberta.` may follow the text prefixes, the fusion
layers are either the upper layers of `text_encoder` (BERT) or a `cross_encoder` (CCLM made from
X2-VLM), the masked-LM head is `text_encoder.cls` or `mlm_head`, and X-VLM's captioning file calls
the whole stack `text_decoder`. `canonical` brings them to one spelling, which the table of
`x2vlm.checkpoint.keys` then translates key by key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError

_TEXT_LAYER = re.compile(
    r"(?:text_encoder|text_decoder)\.(?:bert\.|roberta\.)?encoder\.layer\.(\d+)\.(.*)"
)


@dataclass(frozen=True)
class Layout:
    """The layout of one file.

    Attributes:
        text_layers: layers of the text encoder; higher layers of its stack are fusion layers.
        separate_fusion: fusion layers and masked-LM head lie apart, as in CCLM made from X2-VLM.
        bert: `bert.` stands before the names of the stack.
        pair: `cls_head` judges a text about two images (NLVR2).
        twin_fusion: fusion layers stand in pairs that share keys and values (X-VLM's NLVR2).
        causal: the stack is a `text_decoder` that predicts the next token (X-VLM's captioning).
    """

    text_layers: int
    separate_fusion: bool = False
    bert: bool = False
    pair: bool = False
    twin_fusion: bool = False
    causal: bool = False


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout of a file's tensors under official keys.

    Raises:
        CheckpointError: a layer number is left out (`ckpt/keys`).
    """
    causal = not any(key.startswith("text_encoder.") for key in tensors)
    stack = "text_decoder." if causal else "text_encoder."
    text_layers = num_text_layers(key for key in tensors if key.startswith(stack))
    twin_fusion = _has_twins(tensors, text_layers)
    return Layout(
        text_layers,
        separate_fusion=any(key.startswith("cross_encoder.") for key in tensors),
        bert=any(key.startswith(f"{stack}bert.") for key in tensors),
        pair=twin_fusion or _reads_two_vectors(tensors),
        twin_fusion=twin_fusion,
        causal=causal,
    )


def layout_for(config: X2VLMConfig) -> Layout:
    """The layout in which the official classes save a model of this configuration."""
    return Layout(
        config.text.num_layers,
        separate_fusion=config.separate_fusion,
        bert=config.writes,
        twin_fusion=config.fusion.twin_layers,
        causal=config.causal,
    )


def num_text_layers(keys: Iterable[str]) -> int:
    """Where the text encoder ends: the first layer with cross-attention, or after the last layer.

    Raises:
        CheckpointError: a layer number is left out (`ckpt/keys`).
    """
    found = [(int(match[1]), match[2]) for key in keys if (match := _TEXT_LAYER.match(key))]
    layers = {layer for layer, _ in found}
    fusion = {layer for layer, rest in found if rest.startswith("crossattention.")}
    if layers != set(range(len(layers))):
        raise CheckpointError(
            "The text layers of the file are not numbered without a gap, so it is damaged or of "
            "another model. Get it again from its source.",
            "ckpt/keys",
        )
    return min(fusion) if fusion else len(layers)


def canonical(key: str, layout: Layout) -> str:
    """The canonical spelling of an official key."""
    if layout.causal:
        key = re.sub(r"^text_decoder\.cls\.", "causal_lm_head.", key)
        key = re.sub(r"^text_decoder\.", "text_encoder.", key)
    key = re.sub(r"^(text_encoder|text_decoder|cross_encoder)\.(bert|roberta)\.", r"\1.", key)
    key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
    key = re.sub(r"^text_encoder\.cls\.", "mlm_head.", key)
    if layout.pair:
        key = re.sub(r"^cls_head\.", "cls_head.pair.", key)
    if match := re.match(r"text_encoder\.encoder\.layer\.(\d+)\.", key):
        layer = int(match[1])
        if layer >= layout.text_layers:
            rest = key[match.end() :]
            key = f"cross_encoder.encoder.layer.{layer - layout.text_layers}.{rest}"
    return key


def official_spelling(key: str, layout: Layout) -> str:
    """Inverse of `canonical`: how the official classes spell a canonical key."""
    key = key.replace("cls_head.pair.", "cls_head.")
    key = re.sub(r"^text_decoder\.(?!cls\.)", "text_decoder.bert.", key)
    if layout.separate_fusion:
        return key
    if match := re.match(r"cross_encoder\.encoder\.layer\.(\d+)\.", key):
        layer = int(match[1]) + layout.text_layers
        key = f"text_encoder.encoder.layer.{layer}.{key[match.end() :]}"
    if layout.bert:
        key = re.sub(r"^text_encoder\.", "text_encoder.bert.", key)
    if layout.causal:
        key = re.sub(r"^text_encoder\.", "text_decoder.", key)
        key = re.sub(r"^causal_lm_head\.", "text_decoder.cls.", key)
    return re.sub(r"^mlm_head\.", "text_encoder.cls.", key)


def _reads_two_vectors(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the classifier reads the fused vectors of two images (X2-VLM's NLVR2)."""
    words = [tensor for key, tensor in tensors.items() if key.endswith(".word_embeddings.weight")]
    classes = tensors.get("cls_head.0.weight")
    return bool(
        words
        and classes is not None
        and classes.ndim == words[0].ndim == 2
        and classes.shape[1] == 2 * words[0].shape[1]
    )


def _has_twins(tensors: Mapping[str, Tensor], text_layers: int) -> bool:
    """Whether every two neighbouring fusion layers project the image by the same keys and values:
    shapes alone would not tell X-VLM's NLVR2 file from one with as many ordinary layers."""
    projections: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _TEXT_LAYER.match(key)
        if match and match[2].startswith(("crossattention.self.key.", "crossattention.self.value")):
            projections.setdefault(int(match[1]) - text_layers, {})[match[2]] = tensor
    if not projections or sorted(projections) != list(range(len(projections))):
        return False
    pairs = zip(range(0, len(projections), 2), range(1, len(projections), 2))
    return len(projections) % 2 == 0 and all(
        projections[first].keys() == projections[second].keys()
        and all(
            torch.equal(tensor, projections[second][name])
            for name, tensor in projections[first].items()
        )
        for first, second in pairs
    )
