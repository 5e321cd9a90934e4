"""Starting weights for training from published parts: BEiT-2, Swin or CLIP towers, BERT, XLM-R, and
X2-VLM for CCLM.

Every function copies in place and returns the names of the parameters that stay fresh; training
gives those a higher rate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from x2vlm import hub
from x2vlm.batch_norm import folded_state
from x2vlm.checkpoint.content import shown
from x2vlm.checkpoint.keys import our_name
from x2vlm.checkpoint.layout import Layout, canonical
from x2vlm.checkpoint.loading import CONFIG, translated_tensors
from x2vlm.checkpoint.parameters import fit_tensor, parameter_slots
from x2vlm.checkpoint.safe_load import read_tensors
from x2vlm.checkpoint.source import read_source, weights_file
from x2vlm.config import MODEL_TYPE
from x2vlm.errors import CheckpointError
from x2vlm.processing import load_tokenizer


def initialize(
    model: nn.Module,
    *,
    x2vlm: str | Path | None = None,
    vision: str | Path | None = None,
    text: str | Path | None = None,
    fusion: str | Path | None = None,
    vocabulary: Mapping[str, int] | None = None,
    embeddings_only: bool = False,
) -> list[str]:
    """Fills a freshly built model from published parts, in the order of the arguments.

    Args:
        x2vlm: an X2-VLM checkpoint to make a model of another language or of many (CCLM) of:
            everything but the text encoder and the vocabulary layer, or but their embeddings.
        vision: tower weights, a timm name (`beitv2_base_patch16_224.in1k_ft_in22k`) or a local
            file.
        text: BERT or XLM-R, a transformers name or a local file or folder. Layers go to the text
            encoder: one to one, or evenly chosen with the last of each group (BERT large: 1, 3, ..,
            23). With BERT, the fusion layers become copies of the last of them, or get the file's
            remaining layers where it has just as many (X-VLM); those of `x2vlm` stay. A folder with
            a checkpoint of ours gives its text encoder as it is.
        fusion: BERT for the fusion layers alone, as CCLM wants: its last layers.
        vocabulary: token -> row of the model's word table, where it is cut from that of `text`,
            whose folder must then hold its tokenizer: rows are copied by token.
        embeddings_only: the layers of the text encoder stay those of `x2vlm`, too; `text` gives
            words and positions.

    Returns:
        Names of parameters that no source has set.

    Raises:
        CheckpointError: see `x2vlm.checkpoint.safe_load`, also a source of another width
            (`ckpt/shape`) or one that cannot be fetched (`ckpt/source`).
    """
    fresh = {slot.name for slot in parameter_slots(model) if slot.parameter.requires_grad}
    replaced = _VOCABULARY if embeddings_only else ("text_encoder.", *_VOCABULARY)
    if x2vlm is not None:
        state = translated_tensors(x2vlm)
        kept = {name: tensor for name, tensor in state.items() if not name.startswith(replaced)}
        fresh -= _copy(model, kept, str(x2vlm))
    if vision is not None:
        fresh -= _copy(model, _vision_tensors(vision, model), str(vision))
    if text is not None:
        ours = _is_ours(Path(text))
        source = translated_tensors(text) if ours else _transformer_tensors(text)
        if vocabulary is not None and not ours and len(vocabulary) != len(source[_WORDS]):
            source[_WORDS] = _rows_by_token(source[_WORDS], Path(text), vocabulary)
        part = source if ours else _text_part(source, model)
        if ours or x2vlm is not None:  # which keeps the fusion layers and what reads them
            part = {name: tensor for name, tensor in part.items() if name.startswith(replaced)}
        fresh -= _copy(model, part, str(text))
        if not ours and x2vlm is None and not model.config.multilingual:
            fresh -= _copy(model, _fusion_part(source, model, shared=True), str(text))
    if fusion is not None:
        fresh -= _copy(
            model, _fusion_part(_transformer_tensors(fusion), model, shared=False), str(fusion)
        )
    return sorted(fresh)


_VOCABULARY = ("text_encoder.embeddings.", "masked_lm_head.decoder.", "answer_decoder.")
"""What belongs to a vocabulary. With the layers of the text encoder it is what belongs to a
language: all else of an X2-VLM checkpoint serves any, as in CCLM."""


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a model as we save it, not one of transformers."""
    config = folder / CONFIG
    return (
        config.is_file() and json.loads(config.read_text("utf-8")).get("model_type") == MODEL_TYPE
    )


@torch.no_grad()
def initialize_answer_decoder(model: nn.Module) -> list[str]:
    """Answer decoder from the pre-trained model (its `masked_lm` head included, if it has one).

    Layers copy the fusion layers one to one, or evenly chosen with the last of each group (3 of 6:
    1, 3, 5). Where image and text differ in width (Swin), keys and values of cross-attention stay
    fresh. CCLM keeps fresh embeddings and head.

    Returns:
        Names of parameters of the decoder that stay fresh.
    """
    model.require("answer_decoder")
    source = dict(model.named_parameters(remove_duplicate=False))
    count, available = model.config.decoder.num_layers, model.config.fusion.num_layers
    chosen = _evenly(available, count)
    fresh = []
    for slot in parameter_slots(model.answer_decoder):
        name = re.sub(
            r"^layers\.(\d+)",
            lambda match: f"fusion_encoder.layers.{chosen[int(match[1])]}",
            slot.name,
        )
        if not name.startswith("fusion_encoder.") and not model.config.multilingual:
            name = re.sub(
                "^embeddings", "text_encoder.embeddings", re.sub("^head", "masked_lm_head", name)
            )
        rows = min(len(slot.parameter), len(source[name])) if name in source else 0
        if rows and source[name].shape[1:] == slot.parameter.shape[1:]:
            slot.parameter[:rows] = source[name][:rows]
        else:
            fresh.append(f"answer_decoder.{slot.name}")
    return fresh


def _evenly(available: int, count: int) -> list[int]:
    """`count` of `available` layers, the last of each group: 12 of 24 gives 1, 3, .., 23."""
    return [(index + 1) * available // count - 1 for index in range(count)]


@torch.no_grad()
def _copy(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> set[str]:
    """Copies what the model has a place for; returns the names that are set."""
    done, file = set(), Path(source).name
    for slot in parameter_slots(model):
        if slot.names & tensors.keys():
            value = fit_tensor(slot, tensors, file, (None, model.config.vision))
            if value.shape == slot.parameter.shape:
                slot.parameter.copy_(value)
                done.add(slot.name)
    if not done:
        raise CheckpointError(
            f"{shown(file)} holds no weights that this model could start from.", "ckpt/keys"
        )
    return done


_WORDS = "embeddings.word_embeddings.weight"


def _rows_by_token(words: Tensor, folder: Path, vocabulary: Mapping[str, int]) -> Tensor:
    """The rows of a word table in the order of a vocabulary that is cut from its own; tokens that
    it lacks get its mean."""
    own = load_tokenizer(folder).get_vocab()
    rows = words.mean(dim=0).expand(len(vocabulary), -1).clone()
    for token, row in vocabulary.items():
        if token in own:
            rows[row] = words[own[token]]
    return rows


def _backbone_tensors(source: str | Path, backbone: str) -> dict[str, Tensor]:
    """A timm backbone with its batch norms folded, from a local file with timm's names or from timm
    itself."""
    local = Path(source).is_file()
    try:
        model = timm.create_model(backbone) if local else _timm_model(str(source))
    except Exception:
        raise _unreachable(source, "timm") from None
    if local:
        tensors = read_tensors(Path(source))
        lacking = [
            name
            for name, own in model.state_dict().items()
            if name not in tensors or tensors[name].shape != own.shape
        ]
        if lacking:
            raise CheckpointError(
                f"{shown(Path(source).name)} does not hold {backbone}: {lacking[0]} is missing or "
                "of another shape. `python -m train.prepare.photo_parts` writes a file that fits.",
                "ckpt/keys",
            )
        model.load_state_dict(tensors, strict=False)
    return {f"vision.tower.backbone.{name}": t for name, t in folded_state(model).items()}


def _timm_model(name: str, **options: Any) -> nn.Module:
    """A pretrained timm model: from the cache alone where the Hub does not answer."""
    source = timm.get_pretrained_cfg(name)
    if not hub.reachable() and source is not None and source.hf_hub_id:
        cached = hub.from_hub(
            partial(hf_hub_download, filename=source.hf_hub_filename or "model.safetensors"),
            source.hf_hub_id,
        )
        options["pretrained_cfg_overlay"] = {"file": cached}
    return timm.create_model(name, pretrained=True, **options)


def _vision_tensors(source: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """A local file follows the official names (Swin's `downsample` differs from timm's), a timm
    model those of our tower."""
    if model.config.vision.tower == "timm":
        return _backbone_tensors(source, model.config.vision.backbone)
    if Path(source).is_file():
        tensors = read_tensors(Path(source))
        shared = tensors.pop("rel_pos_bias.relative_position_bias_table", None)
        if shared is not None:
            for block in {key.split(".")[1] for key in tensors if key.startswith("blocks.")}:
                tensors[f"blocks.{block}.attn.relative_position_bias_table"] = shared
        named = {our_name(f"vision_encoder.{key}"): tensor for key, tensor in tensors.items()}
        return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
    try:
        tower = _timm_model(str(source), num_classes=0)
    except Exception:
        raise _unreachable(source, "timm") from None
    return {f"vision.tower.{name}": tensor for name, tensor in tower.state_dict().items()}


def _transformer_tensors(source: str | Path) -> dict[str, Tensor]:
    """BERT or XLM-R tensors under `embeddings.`, `encoder.layer.N.` and `cls.`."""
    path = Path(source)
    if path.exists():
        tensors = read_source(weights_file(path)).tensors
    else:
        from transformers import AutoModelForMaskedLM

        try:
            tensors = hub.from_hub(AutoModelForMaskedLM.from_pretrained, str(source)).state_dict()
        except Exception:
            raise _unreachable(source, "transformers") from None
    return {re.sub(r"^(bert|roberta)\.", "", key): tensor for key, tensor in tensors.items()}


def _unreachable(source: str | Path, library: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(Path(source).name)} is neither a local file nor a model that {library} can fetch. "
        f"Check its name.",
        "ckpt/source",
    )


def _renamed(source: Mapping[str, Tensor], prefix: str, chosen: Sequence[int]) -> dict[str, Tensor]:
    """Layers of `source` under our names; layer i of `prefix` becomes layer `chosen[i]` of the
    source."""
    renamed = {}
    for key, tensor in source.items():
        if match := re.match(r"encoder\.layer\.(\d+)\.", key):
            for target in (target for target, layer in enumerate(chosen) if layer == int(match[1])):
                spelled = canonical(
                    f"{prefix}.encoder.layer.{target}.{key[match.end() :]}", _NO_FUSION
                )
                renamed[our_name(spelled)] = tensor
    return renamed


_NO_FUSION = Layout(text_layers=10**6)
"""A published text model is all text layers."""


def _layers_of(source: Mapping[str, Tensor]) -> int:
    numbers = [
        int(match[1]) for key in source if (match := re.match(r"encoder\.layer\.(\d+)\.", key))
    ]
    return max(numbers, default=-1) + 1


def _text_part(source: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    config, available = model.config, _layers_of(source)
    split = available == config.text.num_layers + config.fusion.num_layers
    chosen = range(config.text.num_layers) if split else _evenly(available, config.text.num_layers)
    named = _renamed(source, "text_encoder", chosen)
    for key, tensor in source.items():
        # CCLM's vocabulary layer is its own and starts random.
        if key.startswith("embeddings.") or (key.startswith("cls.") and not config.multilingual):
            name = our_name(canonical(f"text_encoder.{key}", _NO_FUSION))
            if name is not None and tensor.is_floating_point():
                named[name] = tensor
    return named


def _fusion_part(source: Mapping[str, Tensor], model: nn.Module, shared: bool) -> dict[str, Tensor]:
    """Self-attention and MLP of the fusion layers: copies of the upper text layers, or layers of
    their own."""
    config, available = model.config, _layers_of(source)
    count, text_layers = config.fusion.num_layers, config.text.num_layers
    if not shared or available == text_layers + count:
        chosen = list(range(available - count, available))
    else:
        chosen = _evenly(available, text_layers)[-count:]
    return _renamed(source, "cross_encoder", chosen)
