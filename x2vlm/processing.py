"""Images and texts to tensors: the same functions at training and at inference.

Images: bicubic to a square without keeping the aspect, CLIP statistics. Texts: `[CLS] pieces
[SEP]`; words, and the place where a text was cut, count characters of what the user typed. Departs
from the official code in three points: special tokens that a user types are plain text, a cut is
reported, and captions are cut by tokens alone, not at 30 words too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from x2vlm.config import IMAGE_MEAN, IMAGE_STD, X2VLMConfig, sides
from x2vlm.detokenize import spaces_before
from x2vlm.errors import CheckpointError, TextError
from x2vlm.media import upright_rgb
from x2vlm.results import Word
from x2vlm.texts import CleanText, clean, merge_words, validate_text

_SPECIAL_TOKENS = (
    {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
    },
    {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    },
)
"""Of BERT's and XLM-R's vocabularies."""


@dataclass(frozen=True)
class TokenizedText:
    """One text as the model reads it.

    Attributes:
        text: what the user typed, half characters (lone surrogates) replaced by U+FFFD.
        ids: token ids with `[CLS]` and `[SEP]`.
        words: whole words; `start` and `end` count characters of `text`.
        word_index: for every id the index of its word, -1 for `[CLS]` and `[SEP]`.
        truncated_at: character of `text` at which it was cut to fit, None if it was not.
    """

    text: str
    ids: tuple[int, ...]
    words: tuple[Word, ...]
    word_index: tuple[int, ...]
    truncated_at: int | None


class Processor:
    """Images and texts to model inputs, for one image size and one vocabulary.

    Args:
        config: the model's sizes; `config.vision.image_size` and `grid_size` are used.
        tokenizer: a fast tokenizer of transformers, WordPiece (BERT) or SentencePiece (XLM-R), with
            its special tokens set.
        max_tokens: token budget of a text, `[CLS]` and `[SEP]` included.

    Raises:
        CheckpointError: the tokenizer has more words than the model (`ckpt/shape`).
    """

    def __init__(self, config: X2VLMConfig, tokenizer, max_tokens: int = 40):
        if len(tokenizer) > config.text.vocab_size:
            raise CheckpointError(
                f"The tokenizer has {len(tokenizer)} entries, the model's word table only "
                f"{config.text.vocab_size}. Use the tokenizer that belongs to this checkpoint.",
                "ckpt/shape",
            )
        self.config = config
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, config.text.max_tokens)
        # The backend is used directly: transformers' own call sets truncation, padding and specials
        # on a shared object, which two threads must not do at once.
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self.cls_id: int = tokenizer.cls_token_id
        self.sep_id: int = tokenizer.sep_token_id
        self.mask_id: int = tokenizer.mask_token_id
        self.pad_id: int = tokenizer.pad_token_id
        self.unk_id: int = tokenizer.unk_token_id

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, config: X2VLMConfig, max_tokens: int = 40
    ) -> Processor:
        """Read `tokenizer.json` (or `vocab.txt`, `sentencepiece.bpe.model`) from a folder.

        Raises:
            CheckpointError: see `load_tokenizer`; also a tokenizer that is not this model's
                (`ckpt/shape`).
        """
        return cls(config, load_tokenizer(directory), max_tokens)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        self.tokenizer.save_pretrained(str(directory))

    def image(self, image: Image.Image) -> Tensor:
        """An image of any size and kind -> float32 (3, H, W) of image_size, CLIP statistics (spec
        3.1)."""
        return normalize(to_pixels(image, self.config.vision.image_size))

    def images(self, images: Iterable[Image.Image]) -> Tensor:
        """Images, or the frames of one video -> float32 (N, 3, H, W)."""
        return torch.stack([self.image(image) for image in images])

    def text(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """Texts, not cleaned -> `input_ids`, `attention_mask`, both int64 (B, T) padded to the
        longest; 1 = attend."""
        return self.pad([self.encode(text, None, max_tokens) for text in texts])

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows of ids -> `input_ids`, `attention_mask`, both int64 (B, T)."""
        length = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[self.pad_id] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return ids, mask

    def pieces(self, text: str) -> list[int]:
        """Ids of `text` alone, without `[CLS]` and `[SEP]`, never cut."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode(
        self, text: str, rules: str | None = "caption", max_tokens: int | None = None
    ) -> list[int]:
        """Ids of one text with `[CLS]` and `[SEP]`, cleaned and cut as by `tokenize`.

        For texts that were checked before: training data, and lists of answers. `max_tokens`
        replaces the processor's own budget.
        """
        encoding = self._read(_whole_characters(text), rules)[1]
        room = (max_tokens or self._budget(rules)) - 2
        return [self.cls_id, *encoding.ids[:room], self.sep_id]

    def tokenize(
        self,
        text: str,
        rules: str | None = "caption",
        field: str = "text",
        max_tokens: int | None = None,
    ) -> TokenizedText:
        """Check, clean and tokenise one text that a user typed.

        Args:
            rules: `caption` or `question` for the official cleaning, None for the text as it is. A
                question is cut at 50 words, not at the processor's `max_tokens`.
            field: how the text is called in an error.
            max_tokens: a budget below the processor's own.

        Raises:
            TextError: see `validate_text`; also no known word (`text/unknown`).
        """
        validate_text(text, field)
        text = _whole_characters(text)
        cleaned, encoding = self._read(text, rules)
        if all(index == self.unk_id for index in encoding.ids):
            raise TextError(
                f"The model knows no word of the {field}. Say it in other words.", "text/unknown"
            )
        budget, origin = self._budget(rules), cleaned.origin
        room = min(max_tokens or budget, budget) - 2
        spans = [
            (origin[start], origin[end - 1] + 1 if piece != "▁" else origin[start])
            for piece, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
        ]
        words, word_index = merge_words(text, spans[:room], encoding.word_ids[:room])
        return TokenizedText(
            text=text,
            ids=(self.cls_id, *encoding.ids[:room], self.sep_id),
            words=tuple(words),
            word_index=(-1, *word_index, -1),
            truncated_at=spans[room][0] if len(spans) > room else cleaned.cut_at,
        )

    def _budget(self, rules: str | None) -> int:
        """How many tokens of a text are read. Questions are cut by words, as officially."""
        return self.config.text.max_tokens if rules == "question" else self.max_tokens

    def _read(self, text: str, rules: str | None) -> tuple[CleanText, Any]:
        """The cleaned text and its encoding, not cut."""
        cleaned = clean(text, rules) if rules else None
        if cleaned is None or not cleaned.text.strip():  # only punctuation: it is read as it is
            cleaned = CleanText(text, list(range(len(text))))
        return cleaned, self._backend.encode(cleaned.text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text without special tokens, with spaces where people write them."""
        return self.decode_words(ids, [0.0] * len(ids))[0]

    def decode_words(
        self,
        ids: Sequence[int],
        log_probabilities: Sequence[float],
        prefix: TokenizedText | None = None,
    ) -> tuple[str, tuple[Word, ...], list[int]]:
        """Generated ids -> text, its words, and for every id the index of its word.

        Args:
            log_probabilities: of the ids; a word's probability is that of all its pieces.
            prefix: what the text begins with, letter for letter. Its words have no probability.

        Returns:
            The text; its words; the word of every id, -1 for a special token.
        """
        text = prefix.text if prefix else ""
        words = list(prefix.words) if prefix else []
        groups, word_index = self._group_pieces(ids), [-1] * len(ids)
        said = [word.text for word in words] + [surface for surface, _, _ in groups]
        spaces = spaces_before(said)[len(words) :]
        for number, (surface, begins, positions) in enumerate(groups):
            probability = math.exp(sum(log_probabilities[i] for i in positions))
            if number == 0 and words and not begins:  # goes on within the prefix's last word
                start = words.pop().start
            else:
                space = begins if self.config.multilingual else spaces[number]
                text += " " if space and text and not text[-1].isspace() else ""
                start = len(text)
            text += surface
            for position in positions:
                word_index[position] = len(words)
            words.append(Word(text[start:], start, len(text), probability))
        return text, tuple(words), word_index

    def _group_pieces(self, ids: Sequence[int]) -> list[tuple[str, bool, list[int]]]:
        """Whole words of generated ids: text, whether the first piece begins a word, and positions
        of the pieces. Special tokens belong to none."""
        special = set(self.tokenizer.all_special_ids)
        groups: list[tuple[str, bool, list[int]]] = []
        for position, piece in enumerate(self.tokenizer.convert_ids_to_tokens(list(ids))):
            if ids[position] in special:
                continue
            if self.config.multilingual:
                begins, surface = piece.startswith("▁"), piece.replace("▁", "")
            else:
                begins, surface = not piece.startswith("##"), piece.removeprefix("##")
            if begins or not groups:
                groups.append((surface, begins, [position]))
            else:
                before, starts, positions = groups[-1]
                groups[-1] = before + surface, starts, [*positions, position]
        return groups


def to_pixels(image: Image.Image, size: int | Sequence[int]) -> Tensor:
    """An image of any size -> uint8 (3, H, W), bicubic, aspect not kept (spec 3.1)."""
    image = upright_rgb(image).resize(sides(size)[::-1], Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalize(pixels: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) -> float32 with CLIP's statistics, on the tensor's device."""
    mean = torch.tensor(IMAGE_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def _whole_characters(text: str) -> str:
    """Half characters (lone surrogates), which no tokenizer reads, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_tokenizer(directory: str | Path):
    """The fast tokenizer in a folder, whatever of the three known files is there.

    Raises:
        CheckpointError: none of them is (`ckpt/source`), it cannot be read (`ckpt/damaged`), or it
            has no token for the start, the end, a mask or padding (`ckpt/keys`).
    """
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast, XLMRobertaTokenizerFast

    directory = Path(directory)
    readers = {
        "tokenizer.json": PreTrainedTokenizerFast,
        "vocab.txt": BertTokenizerFast,
        "sentencepiece.bpe.model": XLMRobertaTokenizerFast,
    }
    found = next((name for name in readers if (directory / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"No tokenizer: the model folder holds none of {', '.join(readers)}. Put one there.",
            "ckpt/source",
        )
    try:
        tokenizer = readers[found].from_pretrained(str(directory))
    except Exception:  # tokenizers raises nothing narrower
        raise unreadable_tokenizer(found) from None
    vocabulary = tokenizer.get_vocab()
    special = next(
        (tokens for tokens in _SPECIAL_TOKENS if vocabulary.keys() >= set(tokens.values())), {}
    )
    # The public files of BERT leave it to the class of the tokenizer which tokens are special.
    tokenizer.add_special_tokens(
        {role: token for role, token in special.items() if getattr(tokenizer, role) is None}
    )
    if None in (
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
        tokenizer.pad_token_id,
    ):
        raise CheckpointError(
            f"{found} names no start, end, mask or padding token. Put the tokenizer there that "
            f"belongs to this checkpoint.",
            "ckpt/keys",
        )
    return tokenizer


def unreadable_tokenizer(file: str) -> CheckpointError:
    """The error for a tokenizer file that is there and tells nothing."""
    return CheckpointError(
        f"{file} cannot be read: it is damaged, or the sentencepiece package that its kind needs "
        "is missing. Copy it again, or put a tokenizer.json there.",
        "ckpt/damaged",
    )


def patch_mask(box_xyxy: Sequence[float], grid_size: int | tuple[int, int]) -> Tensor:
    """The patches that a box touches, at least one (spec 3.6): bool (rows * columns,), row by row.

    Args:
        box_xyxy: left, top, right, bottom as fractions of the image's sides.
        grid_size: (rows, columns), or the one number of a square.
    """
    rows, columns = sides(grid_size)
    slack = 1e-6  # of a patch: a box edge on a patch border must not spill over by rounding
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    x1, y1, x2, y2 = box_xyxy

    def span(start: float, end: float, count: int) -> slice:
        first = min(max(math.floor(start * count + slack), 0), count - 1)
        return slice(first, max(min(math.ceil(end * count - slack), count), first + 1))

    mask[span(y1, y2, rows), span(x1, x2, columns)] = True
    return mask.flatten()
