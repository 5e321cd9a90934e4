"""From a command line to a running training: configuration, model and tokenizer, then the engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from timm.layers import set_fused_attn
from torch import nn

from train import engine
from train.config import ModelSource, load_run, usage
from train.stop import StopSignal
from x2vlm.build import build_model
from x2vlm.checkpoint import load_model, save_model
from x2vlm.checkpoint.detect import merge_overrides
from x2vlm.checkpoint.tokenizer import find_tokenizer
from x2vlm.config import PRESETS, X2VLMConfig
from x2vlm.errors import ConfigError, X2VLMError
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import Processor


def launch(arguments: list[str], stop: StopSignal, needs_checkpoint: bool = False) -> int:
    """Trains as `arguments` say; the exit code: 0 finished or stopped by a signal, 1 failed, 2 a wrong configuration.

    Args:
        stop: handler that was installed before anything heavy was imported.
        needs_checkpoint: whether `model.init_from` must be given.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    try:
        run, tasks = load_run(arguments)
        if needs_checkpoint and not run.model.init_from:
            raise ConfigError("model.init_from is missing: fine-tuning starts from a checkpoint.", "config/value")
        _check_writable(Path(run.output_dir))
        if stop.requested:
            return 0
        torch.manual_seed(run.seed)
        # On a CPU the backward pass of the fused kernel takes twice the time of the plain products.
        set_fused_attn(torch.cuda.is_available())
        model, tokenizer, new_parameters = load_source(run.model)
        engine.train(
            run,
            model,
            tasks,
            processor=Processor(model.config, tokenizer),
            new_parameters=new_parameters,
            export=lambda model, folder: save_model(model, folder, tokenizer),
            stop=stop,
        )
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def load_source(source: ModelSource) -> tuple[X2VLM, object, set[str]]:
    """Model, tokenizer and the names of the parameters that training starts afresh beside loaded ones.

    Raises:
        ConfigError: neither a preset nor a checkpoint is named, or an unknown preset. CheckpointError: see `load_model`.
    """
    config = _preset(source)
    given = source.tokenizer or None
    if not source.init_from:
        if config is None:
            raise ConfigError("Name model.preset or model.init_from: what is to be trained?", "config/value")
        return build_model(config), find_tokenizer(config, None, given), set()
    loaded = load_model(source.init_from, config=config or source.overrides)
    print(loaded.report)
    new = set(loaded.report.missing)
    if "answer_decoder" in loaded.report.missing_heads:
        new -= init_answer_decoder(loaded.model)
    return loaded.model, find_tokenizer(loaded.config, loaded.tokenizer_dir, given), new


@torch.no_grad()
def init_answer_decoder(model: X2VLM) -> set[str]:
    """Starts the answer decoder from the text embeddings, the fusion layers and the masked-LM head, as officially.

    With fewer decoder layers, evenly spread fusion layers are taken, the last among them. Weights of another shape (keys and
    values of cross-attention, where image and text widths differ) and those of a multilingual model stay fresh.

    Returns:
        Names of the parameters that were filled.
    """
    if model.config.multilingual:
        return set()
    decoder, fusion = model.answer_decoder, model.fusion_encoder.layers
    sources = [("embeddings", model.text_encoder.embeddings), ("head", model.masked_lm_head)]
    for index in range(len(decoder.layers)):
        sources.append((f"layers.{index}", fusion[round((index + 1) * len(fusion) / len(decoder.layers)) - 1]))
    filled = set()
    for prefix, source in sources:
        if source is not None:
            filled |= {f"answer_decoder.{prefix}.{name}" for name in _copy(source, decoder.get_submodule(prefix))}
    return filled


def _copy(source: nn.Module, target: nn.Module) -> set[str]:
    """Copies parameters of equal names; of tables with more rows the first ones; returns the names."""
    own, copied = dict(target.named_parameters()), set()
    for name, parameter in source.named_parameters():
        if name in own and parameter.shape[1:] == own[name].shape[1:] and len(parameter) >= len(own[name]):
            own[name].copy_(parameter[: len(own[name])])
            copied.add(name)
    return copied


def _preset(source: ModelSource) -> X2VLMConfig | None:
    if not source.preset:
        return None
    if source.preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f"model.preset is {source.preset!r}. Known presets: {known}.", "config/value")
    return merge_overrides(PRESETS[source.preset], source.overrides)


def _check_writable(folder: Path) -> None:
    """Raises `ConfigError` before the model is loaded rather than after."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ConfigError(f"output_dir {folder} cannot be written. Choose another folder.", "config/value")
