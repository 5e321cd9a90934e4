"""The whole architecture on one page: a configuration in, parts with fresh weights out."""

from __future__ import annotations

import torch
from torch import nn

from x2vlm.config import X2VLMConfig
from x2vlm.modeling.decoder import AnswerDecoder
from x2vlm.modeling.dense_boxes import DenseBoxHead
from x2vlm.modeling.heads import MaskedLMHead, MLPHead, ProjectionHead
from x2vlm.modeling.layers import TransformerLayer
from x2vlm.modeling.text import FusionEncoder, TextEmbeddings, TextEncoder
from x2vlm.modeling.vision import VisionEncoder, build_tower


def build_parts(config: X2VLMConfig) -> dict[str, nn.Module | None]:
    """The encoders of `X2VLM` and the heads that `config.heads` names, by the names of its
    arguments; new BERT weights are N(0, 0.02), as in BERT."""
    vision, text, fusion = config.vision, config.text, config.fusion
    heads, width = set(config.heads), text.hidden_size

    embeddings = TextEmbeddings(
        text.vocab_size,
        width,
        text.max_positions,
        text.type_vocab_size,
        text.pad_token_id,
        text.layer_norm_eps,
        text.dropout,
        positions_from_padding=text.positions_from_padding,
    )
    text_layers = [
        TransformerLayer(
            width,
            text.num_heads,
            text.intermediate_size,
            text.layer_norm_eps,
            text.dropout,
            drop_path=rate,
            drop_path_per_token=text.drop_path_per_token,
        )
        for rate in _linear(text.drop_path, text.num_layers)
    ]
    copies = 2 if fusion.twin_layers else 1
    fusion_layers = [
        _fusion_layer(config, vision.hidden_size, fusion.dropout, rate)
        for rate in _linear(fusion.drop_path, fusion.num_layers)
        for _ in range(copies)
    ]
    if fusion.twin_layers:
        _share_projections(fusion_layers)
    tied = None if config.separate_fusion else embeddings.words
    parts = {
        "text_encoder": TextEncoder(embeddings, text_layers),
        "fusion_encoder": FusionEncoder(fusion_layers),
        **{
            f"{head}_head": MaskedLMHead(width, text.vocab_size, text.layer_norm_eps, tied)
            for head in ("masked_lm", "causal_lm")
            if head in heads
        },
        "answer_decoder": _answer_decoder(config) if "answer_decoder" in heads else None,
    }
    for part in parts.values():
        if part is not None:
            part.apply(_init_bert)
    if "contrastive" in heads:
        parts["image_projection"] = ProjectionHead(vision.hidden_size, config.projection_size)
        parts["text_projection"] = ProjectionHead(width, config.projection_size)
    return {"vision": VisionEncoder(build_tower(vision), vision), **parts, **_mlp_heads(config)}


def _mlp_heads(config: X2VLMConfig) -> dict[str, nn.Module]:
    width, vision = config.text.hidden_size, config.vision
    outputs = {
        "matching": (width, 2),
        "box": (width, 4),
        "pair": (width if config.fusion.twin_layers else 2 * width, 2),
        "classification": (width, config.num_labels),
    }
    heads = {
        f"{head}_head": MLPHead(*sizes) for head, sizes in outputs.items() if head in config.heads
    }
    if "dense_box" in config.heads:
        sizes = vision.hidden_size, config.projection_size
        heads["dense_box_head"] = DenseBoxHead(*sizes, vision.grid_size)
    return heads


def _fusion_layer(
    config: X2VLMConfig, context_size: int, dropout: float, drop_path: float = 0.0
) -> TransformerLayer:
    return TransformerLayer(
        config.text.hidden_size,
        config.fusion.num_heads,
        config.fusion.intermediate_size,
        config.fusion.layer_norm_eps,
        dropout,
        context_size,
        drop_path,
        config.fusion.drop_path_per_token,
    )


def _share_projections(layers: list[TransformerLayer]) -> None:
    """Gives the second layer of every two the keys and values of the first."""
    for first, second in zip(layers[::2], layers[1::2], strict=True):
        for name in ("key", "value"):
            source = getattr(first.cross_attention, name)
            target = getattr(second.cross_attention, name)
            target.weight, target.bias = source.weight, source.bias


def _answer_decoder(config: X2VLMConfig) -> AnswerDecoder:
    """Layers shaped like the fusion layers, so that these can initialise them; it reads question
    states, not the image."""
    text, decoder, width = config.text, config.decoder, config.text.hidden_size
    embeddings = TextEmbeddings(
        text.vocab_size,
        width,
        decoder.max_positions,
        decoder.type_vocab_size,
        text.pad_token_id,
        config.fusion.layer_norm_eps,
        config.fusion.dropout,
    )
    layers = [
        _fusion_layer(config, width, config.fusion.dropout) for _ in range(decoder.num_layers)
    ]
    tied = None if config.separate_fusion else embeddings.words
    return AnswerDecoder(
        embeddings, layers, MaskedLMHead(width, text.vocab_size, config.fusion.layer_norm_eps, tied)
    )


def _linear(rate: float, count: int) -> list[float]:
    """Stochastic depth grows linearly with depth."""
    return torch.linspace(0, rate, count, device="cpu").tolist()


def _init_bert(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
