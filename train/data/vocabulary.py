"""Learns a small uncased WordPiece vocabulary: the words of a corpus, then single characters of
many scripts.

    python -m train.data.vocabulary --out runs/mini/tokenizer --size 1600
    python -m train.data.vocabulary --out runs/flickr8k/tokenizer --size 4000 --files
    '../shared/data/flickr8k/train-*.tar'

Every printable ASCII character and, as far as the size allows, the letters of the scripts below
become tokens of their own (and `##` continuations), so that everyday text of those scripts never
turns into [UNK].
"""

from __future__ import annotations

import argparse
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizerFast

from train.data.entries import open_entries
from train.data.formats import captions_of
from train.data.remote import expand
from x2vlm.processing import load_tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SCRIPTS = (
    (0x20, 0x7E),  # ASCII
    (0xA0, 0x17F),  # Latin-1 and Latin Extended-A
    (0x2010, 0x2027),  # dashes and quotes
    (0x391, 0x3C9),  # Greek
    (0x430, 0x45F),  # Cyrillic
    (0x1100, 0x1112),  # Hangul letters, as the normaliser takes syllables apart
    (0x1161, 0x1175),
    (0x11A8, 0x11C2),
    (0x3041, 0x3093),  # Hiragana
    (0x30A1, 0x30F3),  # Katakana
    (0x30FC, 0x30FC),
    (0x3001, 0x3002),
    (0x5D0, 0x5EA),  # Hebrew
    (0x621, 0x64A),  # Arabic
    (0x905, 0x94D),  # Devanagari
    (0xE01, 0xE4D),  # Thai
    (0x20A0, 0x20BF),  # currencies
    (0x2190, 0x2193),  # arrows
)


def learn_vocabulary(corpus: Iterable[str], size: int, min_count: int = 2) -> list[str]:
    """Exactly `size` tokens: specials, printable ASCII, the corpus' words by frequency, then
    letters of further scripts, then unused ones, as a model's word table wants it.

    Words that come less than `min_count` times, or find no room, are spelt letter by letter.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in corpus:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    words = sorted(
        (word for word, count in counts.items() if count >= min_count),
        key=lambda word: (-counts[word], word),
    )
    ascii_range, *further = SCRIPTS
    letters = [token for script in further for token in _letters(script, normalizer, splitter)]
    unused = [f"[unused{index}]" for index in range(size)]
    return list(
        dict.fromkeys(
            [
                *SPECIAL_TOKENS,
                *_letters(ascii_range, normalizer, splitter),
                *words,
                *letters,
                *unused,
            ]
        )
    )[:size]


def cut_vocabulary(vocabulary: Sequence[str], corpus: Iterable[str], size: int) -> list[str]:
    """At most `size` tokens of a published WordPiece vocabulary, in its order: specials, single
    characters and their continuations, and the tokens of the corpus; then, while there is room, the
    first words of the vocabulary, which are the most common ones. Whatever could be written still
    can."""
    tokenizer = build_tokenizer(list(vocabulary))
    counts: Counter[int] = Counter()
    for text in corpus:
        counts.update(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    kept = [t for t in vocabulary if t in SPECIAL_TOKENS or len(t.removeprefix("##")) == 1]
    kept += [vocabulary[index] for index, _ in counts.most_common()]
    kept += [token for token in vocabulary if token.isalpha()]
    chosen = set(list(dict.fromkeys(kept))[:size])
    return [token for token in vocabulary if token in chosen]


def _letters(
    script: tuple[int, int], normalizer: BertNormalizer, splitter: BertPreTokenizer
) -> list[str]:
    """The normalised characters of a range; a continuation too for those that can stand inside a
    word."""
    tokens = []
    for code in range(script[0], script[1] + 1):
        if unicodedata.category(chr(code)) == "Cn":
            continue
        for character in normalizer.normalize_str(chr(code)).strip():
            joined = [word for word, _ in splitter.pre_tokenize_str(f"a{character}")]
            tokens += [character, f"##{character}"] if len(joined) == 1 else [character]
    return tokens


def build_tokenizer(vocabulary: list[str], max_length: int = 512) -> BertTokenizerFast:
    """An uncased BERT tokenizer over the tokens, ids in their order."""
    return BertTokenizerFast(
        vocab={token: index for index, token in enumerate(vocabulary)},
        do_lower_case=True,
        model_max_length=max_length,
    )


def save_tokenizer(vocabulary: list[str], folder: str | Path, max_length: int = 512) -> None:
    """Writes `vocab.txt` (one token a line) and the tokenizer's own files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(vocabulary, max_length).save_pretrained(folder)
    (folder / "vocab.txt").write_text(
        "".join(f"{token}\n" for token in vocabulary), encoding="utf-8"
    )


def _corpus(files: list[str], texts: int) -> Iterator[str]:
    if not files:
        from x2vlm.stickers import corpus

        yield from corpus(texts, seed=0)
    for file in (open_entries(path, "") for path in expand(files)):
        for index in range(len(file)):
            entry = file.entry(index)
            yield from captions_of(entry)
            for pair in entry.get("questions", ()):
                yield f"{pair['question']} {pair['answer']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for the tokenizer")
    parser.add_argument("--size", type=int, default=1600, help="tokens at most")
    parser.add_argument(
        "--files",
        nargs="*",
        default=[],
        help="annotation files or shards with captions; default: stickers",
    )
    parser.add_argument("--texts", type=int, default=50_000, help="sticker texts to learn from")
    parser.add_argument(
        "--max-length", type=int, default=64, help="longest text of the model in tokens"
    )
    parser.add_argument(
        "--cut-from",
        help="folder of a WordPiece tokenizer whose vocabulary is cut, not learnt anew",
    )
    arguments = parser.parse_args()

    corpus = _corpus(arguments.files, arguments.texts)
    if arguments.cut_from:
        own = load_tokenizer(arguments.cut_from).get_vocab()
        vocabulary = cut_vocabulary(sorted(own, key=own.get), corpus, arguments.size)
    else:
        vocabulary = learn_vocabulary(corpus, arguments.size)
    save_tokenizer(vocabulary, arguments.out, arguments.max_length)
    print(f"{len(vocabulary)} tokens written to {arguments.out}")


if __name__ == "__main__":
    main()
