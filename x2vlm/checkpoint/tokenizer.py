"""The tokenizer that belongs to a checkpoint: beside it, named by the caller, or the public one its
family uses."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HTTPError

from x2vlm import hub
from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.processing import load_tokenizer, unreadable_tokenizer

FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model")
PUBLIC = {("bert", 30522): "bert-base-uncased", ("xlm-roberta", 250002): "xlm-roberta-base"}
"""Which public tokenizer a (text family, vocabulary size) means; base and large models share
theirs."""
BERT_VOCABULARY = Path(__file__).parent / "data" / "bert-base-uncased-vocab.txt"
"""BERT's WordPiece vocabulary is part of the package: an English file needs nothing else."""


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds tokenizer files."""
    return any((folder / name).is_file() for name in FILES)


def find_tokenizer(config: X2VLMConfig, beside: Path | None, given: str | Path | None = None):
    """The tokenizer of a checkpoint that is being converted.

    Args:
        beside: folder of the checkpoint if tokenizer files are there. A lone WordPiece vocabulary
            is passed by for XLM-R.
        given: a folder with tokenizer files or a WordPiece vocabulary file; wins over everything
            else.

    Returns:
        A fast tokenizer of transformers with exactly the model's number of entries, or None:
        nothing was given, nothing fitting is beside the checkpoint, and the public one of its
        family is neither BERT's, which is bundled, nor reachable.

    Raises:
        CheckpointError: see `load_tokenizer`; also no tokenizer where one was named
            (`ckpt/source`), or one for another vocabulary (`ckpt/shape`).
    """
    wordpiece_only = beside is not None and not any(
        (beside / name).is_file() for name in FILES if name != "vocab.txt"
    )
    if given is not None:
        tokenizer = _read(Path(given))
    elif beside is not None and not (config.multilingual and wordpiece_only):
        tokenizer = load_tokenizer(beside)
    else:
        tokenizer = _public(config)
    if tokenizer is not None and len(tokenizer) != config.text.vocab_size:
        raise CheckpointError(
            f"The tokenizer has {len(tokenizer):,} entries, the model's word table "
            f"{config.text.vocab_size:,}. Give the tokenizer that belongs to this checkpoint.",
            "ckpt/shape",
        )
    return tokenizer


def missing_note(config: X2VLMConfig) -> str:
    """What to do about a converted folder without a tokenizer."""
    name = PUBLIC.get((config.text.family, config.text.vocab_size), "its training")
    files = (
        "sentencepiece.bpe.model or tokenizer.json"
        if config.multilingual
        else "vocab.txt or tokenizer.json"
    )
    return (
        f"no tokenizer was found here or on the Hugging Face Hub, so the model cannot read text "
        f"yet: put {files} of {name} into the folder"
    )


def _read(given: Path):
    if given.is_dir():
        return load_tokenizer(given)
    if not given.is_file() or given.suffix != ".txt":
        raise CheckpointError(
            f"There is no tokenizer at {given.name!r}. Give a folder with one of "
            f"{', '.join(FILES)}, or a .txt file.",
            "ckpt/source",
        )
    from transformers import BertTokenizerFast

    try:
        lines = given.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError):
        raise unreadable_tokenizer(given.name) from None
    return BertTokenizerFast(
        vocab={line: index for index, line in enumerate(lines)}, do_lower_case=True
    )


def _public(config: X2VLMConfig):
    """The bundled one, or from the Hugging Face cache or Hub; None if it cannot be had."""
    name = PUBLIC.get((config.text.family, config.text.vocab_size))
    if name is None:
        return None
    if name == "bert-base-uncased":
        return _read(BERT_VOCABULARY)
    from transformers import AutoTokenizer

    try:
        return hub.from_hub(AutoTokenizer.from_pretrained, name)
    except (HTTPError, OSError, ValueError):
        return None
