"""The tokenizer that belongs to a checkpoint: beside it, named by the caller, or the public one its family uses."""

from __future__ import annotations

from pathlib import Path

from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.processing import load_tokenizer

FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model")
PUBLIC = {("bert", 30522): "bert-base-uncased", ("xlm-roberta", 250002): "xlm-roberta-base"}
"""Which public tokenizer a (text family, vocabulary size) means; base and large models share theirs."""


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds tokenizer files."""
    return any((folder / name).is_file() for name in FILES)


def find_tokenizer(config: X2VLMConfig, beside: Path | None, given: str | Path | None = None):
    """The tokenizer of a checkpoint that is being converted.

    Args:
        beside: folder of the checkpoint if tokenizer files are there.
        given: a folder with tokenizer files or a WordPiece vocabulary file; wins over everything else.

    Returns:
        A fast tokenizer of transformers with exactly the model's number of entries.

    Raises:
        CheckpointError: none found (`ckpt/source`), or one for another vocabulary (`ckpt/shape`).
    """
    if given is not None:
        tokenizer = _read(Path(given))
    elif beside is not None:
        tokenizer = load_tokenizer(beside)
    else:
        tokenizer = _public(config)
    if len(tokenizer) != config.text.vocab_size:
        raise CheckpointError(
            f"The tokenizer has {len(tokenizer):,} entries, the model's word table {config.text.vocab_size:,}. "
            "Give the tokenizer that belongs to this checkpoint.",
            "ckpt/shape",
        )
    return tokenizer


def _read(given: Path):
    if given.is_dir():
        return load_tokenizer(given)
    if not given.is_file() or given.suffix != ".txt":
        raise CheckpointError(
            f"There is no tokenizer at {given.name!r}. Give a folder with one of {', '.join(FILES)}, or a .txt file.",
            "ckpt/source",
        )
    from transformers import BertTokenizerFast

    lines = given.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return BertTokenizerFast(vocab={line: index for index, line in enumerate(lines)}, do_lower_case=True)


def _public(config: X2VLMConfig):
    name = PUBLIC.get((config.text.family, config.text.vocab_size))
    wanted = "vocab.txt" if config.text.family == "bert" else "sentencepiece.bpe.model"
    if name is not None:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError):
            pass
    raise CheckpointError(
        f"The checkpoint comes without a tokenizer{f' and {name} is not reachable' if name else ''}. "
        f"Put its {wanted} beside it, or name a folder that holds one.",
        "ckpt/source",
    )
