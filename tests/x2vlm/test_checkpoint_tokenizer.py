"""The converted tokenizer gives the ids of BERT's published rules on text of every script, and a
wrong one is refused."""

import dataclasses
import unicodedata

import pytest
import torch
from huggingface_hub.errors import HTTPError

from tests.x2vlm.test_checkpoint import CONFIGS, write_official
from x2vlm.checkpoint.tokenizer import BERT_VOCABULARY, find_tokenizer
from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.modeling.build import build_model, convert
from x2vlm.presets import BASE
from x2vlm.processing import Processor, load_tokenizer

TEXTS = [
    "a picture of a man's dog -- runs/jumps, quickly!",
    "UPPER-case_under@home & 50% (really?) don't state-of-the-art",
    "l'été est là, où naïve façade coöperate Ångström Çelik İstanbul ß ẞ ﬁ",
    "你好，世界。 红色的汽车 開く", "こんにちは世界 カタカナ ｶﾀｶﾅ", "안녕하세요 세계", 
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε", "שלום עולם",
    "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "สวัสดีชาวโลก", "வணக்கம்", "გამარჯობა", "Բարեւ", "ආයුබෝවන්", "ሰላም",
    "🙂👍🏽 emoji 👩‍👩‍👧", "x² + y₃ ≥ ½ € £ ¥ ™ ©", "tabs\tand\nnew lines\r "
                                                "and\u00a0nbsp\u200bzero\u200dwidth \ufeffbom",
    "control\x07char\x00nul replacement\ufffd", "supercalifragilisticexpialidocious " + "a" * 150,
    "   ", "...",
    "１２３ ＡＢＣ",
    "e\u0301 vs é, o\u0308 vs ö", "𝒜𝒷𝒸 𠀀𠀁", "[CLS] [MASK] ##ing",
]  # fmt: skip


def is_punctuation(character: str) -> bool:
    code = ord(character)
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_mark or unicodedata.category(character).startswith("P")


def is_ideograph(character: str) -> bool:
    ranges = (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
        (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
        (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
    )  # fmt: skip
    return any(low <= ord(character) <= high for low, high in ranges)


def wordpiece(text: str, vocabulary: dict[str, int]) -> list[int]:
    """BERT's uncased tokenisation written down from its description (arXiv 1810.04805 and its
    released vocabulary)."""
    spaced = []
    for character in text:
        kind = unicodedata.category(character)
        if character in "\t\n\r" or kind == "Zs":
            spaced.append(" ")
        elif character in "\0\ufffd" or kind.startswith("C"):
            continue
        else:
            spaced.append(f" {character} " if is_ideograph(character) else character)
    ids = []
    for word in "".join(spaced).split(" "):
        plain = [
            c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn"
        ]
        for part in "".join(f" {c} " if is_punctuation(c) else c for c in plain).split():
            ids += longest_matches(part, vocabulary)
    return ids


def longest_matches(part: str, vocabulary: dict[str, int]) -> list[int]:
    pieces, start = [], 0
    while start < len(part):
        prefix = "##" if start else ""
        end = next(
            (end for end in range(len(part), start, -1) if prefix + part[start:end] in vocabulary),
            None,
        )
        if end is None or len(part) > 100:
            return [vocabulary["[UNK]"]]
        pieces.append(vocabulary[prefix + part[start:end]])
        start = end
    return pieces


def test_official_ids_on_text_of_every_script(tmp_path):
    tokenizer = find_tokenizer(BASE, None)
    tokenizer.save_pretrained(str(tmp_path))
    processor = Processor.from_pretrained(tmp_path, BASE)
    lines = BERT_VOCABULARY.read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = {line: index for index, line in enumerate(lines)}
    assert (
        processor.cls_id == 101
        and processor.sep_id == 102
        and processor.mask_id == 103
        and processor.unk_id == 100
    )
    for text in TEXTS:
        assert processor.pieces(text) == wordpiece(text, vocabulary), text
    assert processor.pieces("a picture of ") == [1037, 3861, 1997]


def test_a_vocabulary_beside_the_checkpoint_is_converted(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    entries = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cat",
        "##s",
        *(f"w{n}" for n in range(83)),
    ]
    torch.manual_seed(0)
    write_official(build_model(CONFIGS["captioning"]), tmp_path / "model.th")
    (tmp_path / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    report = convert(tmp_path / "model.th", tmp_path / "out")
    assert not report.notes
    assert load_tokenizer(tmp_path / "out").convert_tokens_to_ids(["cat", "##s", "w82"]) == [
        5,
        6,
        89,
    ]
    processor = Processor.from_pretrained(tmp_path / "out", CONFIGS["captioning"])
    assert processor.text(["Cats w3"])[0].tolist() == [[2, 5, 6, 10, 3]]
    (tmp_path / "vocab.txt").write_text("\n".join(entries[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="89 entries") as caught:
        convert(tmp_path / "model.th", tmp_path / "again")
    assert caught.value.code == "ckpt/shape" and not (tmp_path / "again").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "words.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    convert(tmp_path / "model.th", tmp_path / "again", tokenizer=tmp_path / "other" / "words.txt")
    assert load_tokenizer(tmp_path / "again").convert_tokens_to_ids("cat") == 5


def test_without_any_tokenizer_the_report_says_what_to_add(tmp_path):
    write_official(build_model(CONFIGS["cclm"]), tmp_path / "model.th")
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", encoding="utf-8"
    )  # not XLM-R's kind
    report = convert(tmp_path / "model.th", tmp_path / "out")
    assert "sentencepiece.bpe.model" in str(report)
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        convert(tmp_path / "model.th", tmp_path / "out2", tokenizer=tmp_path / "nothing.txt")
    (tmp_path / "latin.txt").write_bytes("[PAD]\né\n".encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"latin\.txt") as caught:
        convert(tmp_path / "model.th", tmp_path / "out2", tokenizer=tmp_path / "latin.txt")
    assert caught.value.code == "ckpt/damaged"


@pytest.fixture
def xlm_r_base() -> X2VLMConfig:
    text = dataclasses.replace(CONFIGS["cclm"].text, vocab_size=250002)
    return CONFIGS["cclm"].replace(text=text)


def test_bert_comes_from_the_package_without_the_library_that_downloads(monkeypatch):
    import transformers

    def asked(*_, **__):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", asked)
    assert find_tokenizer(BASE, None).convert_tokens_to_ids("picture") == 3861


def test_a_proxy_that_fails_is_no_tokenizer(monkeypatch, xlm_r_base):
    import sys

    import transformers

    client = sys.modules[HTTPError.__module__.partition(".")[0]]

    def failing(*_, **__):
        raise client.ProxyError("407")

    monkeypatch.setattr("x2vlm.hub.reachable", lambda: True)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", failing)
    assert find_tokenizer(xlm_r_base, None) is None
