"""Media and text to tensors: the same code at training and at inference.

Images: bicubic to a square without keeping the aspect, CLIP statistics. Texts: `[CLS] pieces
[SEP]`; words, and the place where a text was cut, count characters of what the user typed. Departs
from the official code in two points: special tokens that a user types are plain text, and a cut is
reported.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from x2vlm.config import IMAGE_MEAN, IMAGE_STD, X2VLMConfig
from x2vlm.errors import CheckpointError, TextError
from x2vlm.results import Word

MAX_CHARACTERS = 10_000
"""A longer text is refused before any tokenising."""

_PUNCTUATION = r"[,.'!?\"()*#:;~/-]"
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
_UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


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
    """Pictures and texts to model inputs, for one image size and one vocabulary.

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

    def image(self, image: Image.Image) -> torch.Tensor:
        """RGB image of any size -> float32 (3, H, W), H = W = image_size, CLIP statistics (spec
        3.1)."""
        side = self.config.vision.image_size
        pixels = np.asarray(
            image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32
        )
        pixels = (pixels / 255 - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def images(self, images: Iterable[Image.Image]) -> torch.Tensor:
        """Pictures, or the frames of one video -> float32 (N, 3, H, W)."""
        return torch.stack([self.image(image) for image in images])

    def text(
        self, texts: Sequence[str], max_tokens: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts, not cleaned -> `input_ids`, `attention_mask`, both int64 (B, T) padded to the
        longest; 1 = attend."""
        room = (max_tokens or self.max_tokens) - 2
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return self.pad(
            [[self.cls_id, *encoding.ids[:room], self.sep_id] for encoding in encodings]
        )

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of ids -> `input_ids`, `attention_mask`, both int64 (B, T)."""
        length = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[self.pad_id] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        return ids, mask

    def pieces(self, text: str) -> list[int]:
        """Ids of `text` alone, without `[CLS]` and `[SEP]`, never cut."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def tokenize(
        self,
        text: str,
        clean: str | None = "caption",
        field: str = "text",
        max_tokens: int | None = None,
    ) -> TokenizedText:
        """Check, clean and tokenise one text that a user typed.

        Args:
            clean: `caption` or `question` for the official rules, None for the text as it is.
            field: how the text is called in an error.
            max_tokens: a budget below the processor's own.

        Raises:
            TextError: see `validate_text`; also no known word (`text/unknown`).
        """
        validate_text(text, field)
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        cleaned, origin = _clean(text, clean) if clean else ("", [])
        if (
            not cleaned.strip()
        ):  # no cleaning asked for, or nothing but punctuation: read what is there
            cleaned, origin = text, list(range(len(text)))
        encoding = self._backend.encode(cleaned, add_special_tokens=False)
        if all(index == self.unk_id for index in encoding.ids):
            raise TextError(
                f"The model knows no word of the {field}. Say it in other words.", "text/unknown"
            )
        room = min(max_tokens or self.max_tokens, self.max_tokens) - 2
        spans = [
            (origin[start], origin[end - 1] + 1 if piece != "▁" else origin[start])
            for piece, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
        ]
        words, word_index = _merge_words(text, spans[:room], encoding.word_ids[:room])
        return TokenizedText(
            text=text,
            ids=(self.cls_id, *encoding.ids[:room], self.sep_id),
            words=tuple(words),
            word_index=(-1, *word_index, -1),
            truncated_at=spans[room][0] if len(spans) > room else None,
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text without special tokens, spaces before punctuation removed (as the official
        decoding)."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=True
        ).strip()

    def decode_words(
        self, ids: Sequence[int], log_probabilities: Sequence[float]
    ) -> tuple[str, tuple[Word, ...], list[int]]:
        """Generated ids -> text, its words (probability: of all their pieces), and for every id its
        word (-1: special)."""
        text = self.decode(ids)
        special = set(self.tokenizer.all_special_ids)
        groups: list[list[int]] = []
        for position, (index, piece) in enumerate(
            zip(ids, self.tokenizer.convert_ids_to_tokens(list(ids)), strict=True)
        ):
            if index in special:
                continue
            continues = (
                piece.startswith("##")
                if not self.config.multilingual
                else not piece.startswith("▁")
            )
            if continues and groups:
                groups[-1].append(position)
            else:
                groups.append([position])
        words, word_index, cursor = [], [-1] * len(ids), 0
        for group in groups:
            surface = self.decode([ids[position] for position in group])
            start = max(text.find(surface, cursor), cursor)
            cursor = min(start + len(surface), len(text))
            probability = math.exp(sum(log_probabilities[position] for position in group))
            for position in group:
                word_index[position] = len(words)
            words.append(Word(text[start:cursor], start, cursor, probability))
        return text, tuple(words), word_index


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


def validate_text(text: object, field: str = "text") -> None:
    """Refuse what no tokenizer can read.

    Raises:
        TextError: not a string (`text/type`), too long (`text/long`), nothing visible
            (`text/empty`).
    """
    if not isinstance(text, str):
        raise TextError(
            f"The {field} must be text, not {type(text).__name__}. Send it as a string.",
            "text/type",
        )
    if len(text) > MAX_CHARACTERS:
        raise TextError(
            f"The {field} has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}. Shorten "
            f"it.",
            "text/long",
        )
    if all(unicodedata.category(character)[0] in "CZ" for character in text):
        raise TextError(f"The {field} is empty. Write a few words.", "text/empty")


def clean_caption(text: str, max_words: int | None = None) -> str:
    """The official caption rules (`pre_caption`): lower case, punctuation to spaces, spaces
    collapsed, first words kept.

    Raises:
        TextError: nothing is left (`text/empty`).
    """
    cleaned = _clean(text, "caption")[0]
    if not cleaned:
        raise TextError(
            "The caption has no words, only punctuation. Write a few words.", "text/empty"
        )
    return " ".join(cleaned.split(" ")[:max_words])


def clean_question(text: str, max_words: int | None = None) -> str:
    """The official question rules (`pre_question`): as for captions, but spaces are kept and count
    as empty words."""
    return " ".join(_clean(text, "question")[0].split(" ")[:max_words])


def patch_mask(box_xyxy: Sequence[float], grid_size: int) -> torch.Tensor:
    """The patches that a box touches, at least one (spec 3.6): bool (grid_size ** 2,), row by row.

    Args:
        box_xyxy: left, top, right, bottom as fractions of the picture's sides.
    """
    slack = 1e-6  # of a patch: a box edge on a patch border must not spill over by rounding
    mask = torch.zeros(grid_size, grid_size, dtype=torch.bool)
    x1, y1, x2, y2 = (edge * grid_size for edge in box_xyxy)
    left, top = (min(max(math.floor(edge + slack), 0), grid_size - 1) for edge in (x1, y1))
    right, bottom = (min(math.ceil(edge - slack), grid_size) for edge in (x2, y2))
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask.flatten()


def _clean(text: str, rules: str) -> tuple[str, list[int]]:
    """The cleaned text, and for each of its characters the index of the character in `text` that it
    comes from."""
    origin = [i for i, character in enumerate(text) for _ in character.lower()]
    text = text.lower()
    text, origin = _substitute(_PUNCTUATION, " ", text, origin)
    if rules == "question":
        kept = len(text.rstrip(" "))
        return text[:kept], origin[:kept]
    text, origin = _substitute(r"<(?=person>)|(?<=<person)>", "", text, origin)
    text, origin = _substitute(r"\s{2,}", " ", text, origin)
    kept = text.rstrip("\n").strip(" ")
    start = len(text) - len(text.lstrip(" "))
    return kept, origin[start : start + len(kept)]


def _substitute(
    pattern: str, replacement: str, text: str, origin: list[int]
) -> tuple[str, list[int]]:
    """`re.sub` with a replacement of at most one character, origins kept."""
    parts, origins, last = [], [], 0
    for match in re.finditer(pattern, text):
        parts += [text[last : match.start()], replacement]
        origins += origin[last : match.start()] + [origin[match.start()]] * len(replacement)
        last = match.end()
    return "".join([*parts, text[last:]]), origins + origin[last:]


def _merge_words(
    text: str, spans: list[tuple[int, int]], word_ids: list[int | None]
) -> tuple[list[Word], list[int]]:
    """Pieces -> whole words. In a script without spaces every piece is a word (SentencePiece keeps
    such sentences whole)."""
    bounds: list[tuple[int, int]] = []
    word_index = []
    for (start, end), word_id, previous in zip(spans, word_ids, [None, *word_ids], strict=False):
        start += len(text[start:end]) - len(text[start:end].lstrip())
        if (
            bounds and word_id == previous and bounds[-1][0] == bounds[-1][1]
        ):  # a lone SentencePiece mark joins what follows
            bounds[-1] = (start, end)
        elif bounds and word_id == previous and not _starts_word(text[start:end]):
            bounds[-1] = (bounds[-1][0], max(end, bounds[-1][1]))
        else:
            bounds.append((start, end))
        word_index.append(len(bounds) - 1)
    return [Word(text[start:end], start, end) for start, end in bounds], word_index


def _starts_word(piece: str) -> bool:
    return unicodedata.name(piece[:1] or " ", "").startswith(_UNSPACED_SCRIPTS)
