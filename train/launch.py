"""From a command line to a running training: configuration, data, model and tokenizer, then the
trainer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from train import trainer
from train.config import ModelSource, load_run, usage
from train.step import checkpoint_layers, compile_layers
from train.stop import StopSignal
from x2vlm.checkpoint import initialize, initialize_answer_decoder, save_model
from x2vlm.checkpoint.detect import merge_overrides
from x2vlm.checkpoint.loading import CONFIG, read_config
from x2vlm.checkpoint.tokenizer import find_tokenizer
from x2vlm.config import X2VLMConfig
from x2vlm.errors import ConfigError, X2VLMError
from x2vlm.modeling.build import build_model, load_model
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.presets import PRESETS
from x2vlm.processing import Processor

PARTS = ("x2vlm", "vision", "text", "fusion")


def launch(arguments: list[str], stop: StopSignal, needs_checkpoint: bool = False) -> int:
    """Trains as `arguments` say; the exit code: 0 finished or stopped by a signal, 1 failed, 2 a
    wrong configuration.

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
            raise ConfigError(
                "model.init_from is missing: fine-tuning starts from a checkpoint.", "config/value"
            )
        _check_writable(Path(run.output_dir))
        if stop.requested:
            return 0
        for task in tasks.values():
            task.open_data()  # what is wrong with the data is told before a model is downloaded
        torch.manual_seed(run.seed)
        model, tokenizer, new_parameters = load_source(run.model)
        if run.gradient_checkpointing:
            checkpoint_layers(model)
        if run.compile:
            compile_layers(model)
        trainer.train(
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
    """Model, tokenizer and the names of the parameters that start fresh beside loaded ones.

    A checkpoint without an answer decoder gets one from its fusion layers, and one without a
    `causal_lm` head the weights of its `masked_lm` head, where `overrides` ask for those heads.

    Raises:
        ConfigError: neither a preset nor a checkpoint is named, or an unknown preset.
            CheckpointError: see `load_model`.
    """
    config = _preset(source)
    given = source.tokenizer or None
    if not source.init_from:
        if config is None:
            raise ConfigError(
                "Name model.preset or model.init_from: what is to be trained?", "config/value"
            )
        model = build_model(config)
        parts = {name: part for name in PARTS if (part := getattr(source, f"{name}_from"))}
        tokenizer = find_tokenizer(config, None, given)
        if not parts:
            return model, tokenizer, set()
        fresh = set(
            initialize(
                model,
                **parts,
                vocabulary=tokenizer.get_vocab() if tokenizer else None,
                embeddings_only=source.embeddings_only,
            )
        )
        return (
            model,
            tokenizer,
            fresh if "answer_decoder" not in config.heads else _copy_decoder(model, fresh),
        )
    loaded = load_model(source.init_from, config=config or source.overrides)
    print(loaded.report)
    new = set(loaded.report.missing)
    if "answer_decoder" in loaded.report.missing_heads:
        new = _copy_decoder(loaded.model, new)
    if "causal_lm" in loaded.report.missing_heads and "masked_lm" in loaded.report.heads:
        loaded.model.causal_lm_head.load_state_dict(loaded.model.masked_lm_head.state_dict())
        new = {name for name in new if not name.startswith("causal_lm_head.")}
    return loaded.model, find_tokenizer(loaded.config, loaded.tokenizer_dir, given), new


def model_config(source: ModelSource) -> X2VLMConfig:
    """The model that `load_source` gives, without its weights.

    Raises:
        ConfigError: it is named neither by a preset or known name nor as a local folder
            (`config/value`).
    """
    config = _preset(source)
    if config is not None:
        return config
    for preset in PRESETS:  # x2vlm_base_1b, cclm_x2vlm_large
        if source.init_from.replace("x2vlm_", "").startswith(preset):
            return merge_overrides(PRESETS[preset], source.overrides)
    path = Path(source.init_from, CONFIG)
    if not source.init_from or not path.is_file():
        raise ConfigError(
            "The size of the model is not known yet: give --model.preset, or a folder with "
            f"{CONFIG} as --model.init_from.",
            "config/value",
        )
    return merge_overrides(read_config(path), source.overrides)


def _copy_decoder(model: X2VLM, fresh: set[str]) -> set[str]:
    """Starts the answer decoder as a copy of the fusion layers; what is fresh now."""
    fresh = {name for name in fresh if not name.startswith("answer_decoder.")}
    return fresh | set(initialize_answer_decoder(model))


def _preset(source: ModelSource) -> X2VLMConfig | None:
    if not source.preset:
        return None
    if source.preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(
            f"model.preset is {source.preset!r}. Known presets: {known}.", "config/value"
        )
    return merge_overrides(PRESETS[source.preset], source.overrides)


def _check_writable(folder: Path) -> None:
    """Raises `ConfigError` before the model is loaded rather than after."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"output_dir {folder} cannot be written. Choose another folder.", "config/value"
        )
