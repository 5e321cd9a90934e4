"""Cleaning, tokenising and image preparation, against the official test vectors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from x2vlm.config import TextConfig
from x2vlm.errors import CheckpointError, TextError
from x2vlm.processing import IMAGE_MEAN, IMAGE_STD, Processor, load_tokenizer, patch_mask
from x2vlm.texts import clean_caption, clean_question, validate_text

CLEANING = [
    (
        "A man's dog -- runs/jumps, quickly!",
        "a man s dog runs jumps quickly",
        "a man s dog    runs jumps  quickly",
    ),
    (
        "<person> is 5'10\" tall; (really?)",
        "person is 5 10 tall really",
        "<person> is 5 10  tall   really",
    ),
    ("Hello\tWorld\n", "hello\tworld", "hello\tworld\n"),
    ("UPPER-case_under@home & 50%", "upper case_under@home & 50%", "upper case_under@home & 50%"),
    ("l'été est là", "l été est là", "l été est là"),
    ("你好，世界。", "你好，世界。", "你好，世界。"),
]


@pytest.mark.parametrize("text, caption, question", CLEANING)
def test_cleaning_vectors(text, caption, question):
    assert clean_caption(text) == caption
    assert clean_question(text) == question


def test_cleaning_of_punctuation_alone():
    with pytest.raises(TextError, match="text/empty"):
        clean_caption("...")
    assert clean_question("...") == ""


def test_a_question_has_fifty_words_and_empty_ones_count():
    assert clean_question("One, two three " + "word " * 60).split(" ") == [
        *("one", "", "two", "three"),
        *["word"] * 46,
    ]


def test_a_caption_is_cut_by_tokens_alone(tiny_processor):
    assert len(clean_caption("word " * 60).split()) == 60
    assert len(tiny_processor.encode("dog " * 60, "caption")) == tiny_processor.max_tokens


def test_a_question_is_cut_by_words_alone(tiny_processor):
    assert len(tiny_processor.encode("dog " * 60, "question")) == 52
    tokens = tiny_processor.tokenize("Dog, " * 30, "question")
    assert len(tokens.words) == 25 and tokens.truncated_at == 25 * 5


@pytest.mark.parametrize(
    "box, columns, rows",
    [
        ((0, 0, 224, 224), (0, 14), (0, 14)),
        ((0, 0, 16, 16), (0, 1), (0, 1)),
        ((0, 0, 16.01, 16), (0, 2), (0, 1)),
        ((15.9, 15.9, 0.2, 0.2), (0, 2), (0, 2)),
        ((223.9, 223.9, 0.1, 0.1), (13, 14), (13, 14)),
        ((224, 224, 0, 0), (13, 14), (13, 14)),
        ((50.4, 33.6, 100.8, 44.8), (3, 10), (2, 5)),
    ],
)
def test_patch_mask_vectors(box, columns, rows):
    x, y, w, h = box
    expected = torch.zeros(14, 14, dtype=torch.bool)
    expected[slice(*rows), slice(*columns)] = True
    assert torch.equal(
        patch_mask([x / 224, y / 224, (x + w) / 224, (y + h) / 224], 14), expected.flatten()
    )


def test_image_equals_torchvision(tiny_processor, photo):
    transform = v2.Compose(
        [
            v2.Resize((64, 64), interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGE_MEAN, IMAGE_STD),
        ]
    )
    torch.testing.assert_close(tiny_processor.image(photo), transform(photo), atol=1e-6, rtol=1e-6)
    assert tiny_processor.images([photo, photo]).shape == (2, 3, 64, 64)


def test_image_takes_grey_and_one_pixel(tiny_processor):
    assert tiny_processor.image(Image.fromarray(np.zeros((1, 1), np.uint8))).shape == (3, 64, 64)


def test_text_pads_with_start_and_end(tiny_processor):
    ids, mask = tiny_processor.text(["a red car", "dog"])
    assert ids.dtype == mask.dtype == torch.int64
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert ids[1].tolist() == [2, ids[1, 1], 3, 0, 0]


def test_words_are_whole_and_in_the_users_characters(tiny_processor):
    text = "Unaffable  <person>'s Kites!"
    tokens = tiny_processor.tokenize(text)
    assert [text[word.start : word.end] for word in tokens.words] == [
        "Unaffable",
        "person",
        "s",
        "Kites",
    ]
    assert [word.text for word in tokens.words] == ["Unaffable", "person", "s", "Kites"]
    assert len(tokens.word_index) == len(tokens.ids)
    assert tokens.word_index == (-1, 0, 0, 0, 1, 2, 3, 3, -1)


def test_truncation_is_visible(tiny_processor):
    text = "Red, " * 30
    tokens = tiny_processor.tokenize(text)
    assert len(tokens.ids) == 20 and tokens.truncated_at == 18 * 5
    assert tokens.words[-1].end <= tokens.truncated_at
    assert tiny_processor.tokenize("red car").truncated_at is None
    assert tiny_processor.text([text])[0].shape == (1, 20)


def test_typed_special_tokens_are_plain_text(tiny_processor):
    for text in ("[MASK] car [SEP] dog", "[CLS]"):
        inner = tiny_processor.tokenize(text, None).ids[1:-1]
        assert not {2, 3, 4} & set(inner)
        assert not {2, 3, 4} & set(tiny_processor.text([text])[0][0, 1:-1].tolist())


@pytest.mark.parametrize(
    "text, code",
    [
        ("", "text/empty"),
        (" \t\n", "text/empty"),
        ("\u00a0\u2003", "text/empty"),
        ("\u200b\u200d\ufeff", "text/empty"),
        ("\x00\x01\x1b", "text/empty"),
        ("a" * 10_001, "text/long"),
        ("a" * 1_000_000, "text/long"),
        ("🐶🐱", "text/unknown"),
        ("a" * 5_000, "text/unknown"),
        (None, "text/type"),
        (7, "text/type"),
        (["a"], "text/type"),
        (b"a", "text/type"),
    ],
)
def test_refused_texts(tiny_processor, text, code):
    with pytest.raises(TextError, match=code) as caught:
        tiny_processor.tokenize(text, field="phrase")
    assert "phrase" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a " * 5_000,
        "red 🐶 car",
        "\u202ea car\u202c",
        "a" + "\u0301" * 300,
        "a\x00 car",
        "a \ud800 car",
        "... !?",
        "?",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](http://example.com/x.png)",
        "{{7*7}} ${x} %s%n",
        "=cmd|' /C calc'!A0",
        "\x1b[31mred\x1b[0m\r\nnext line",
        "/etc/passwd",
        "&lt;b&gt;",
        "[MASK] " * 200,
        "كلب أحمر a",
        "İstanbul ΑΣ a",
    ],
)
def test_odd_texts_are_tokenised_with_true_offsets(tiny_processor, text):
    for rules in ("caption", "question", None):
        tokens = tiny_processor.tokenize(text, rules)
        assert len(tokens.ids) == len(tokens.word_index) <= (64 if rules == "question" else 20)
        assert tokens.words and all(
            0 <= word.start <= word.end <= len(text) for word in tokens.words
        )
        assert max(tokens.word_index) == len(tokens.words) - 1
        if tokens.truncated_at is not None:
            assert tokens.words[-1].end <= tokens.truncated_at + 1 <= len(text)


def test_decoded_words_carry_probabilities(tiny_processor):
    ids = [*tiny_processor.pieces("unaffable dog , a cat ."), tiny_processor.sep_id]
    text, words, word_index = tiny_processor.decode_words(ids, [-0.1] * len(ids))
    assert text == "unaffable dog, a cat."
    assert [text[word.start : word.end] for word in words] == [
        "unaffable",
        "dog",
        ",",
        "a",
        "cat",
        ".",
    ]
    assert words[0].probability == pytest.approx(np.exp(-0.3))
    assert word_index == [0, 0, 0, 1, 2, 3, 4, 5, -1]


def test_saved_tokenizer_loads_equal(tiny_processor, tiny_config, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    again = Processor.from_pretrained(tmp_path, tiny_config)
    assert again.pieces("unaffable kites") == tiny_processor.pieces("unaffable kites")
    assert (again.cls_id, again.sep_id, again.mask_id, again.pad_id, again.unk_id) == (
        2,
        3,
        4,
        0,
        1,
    )


def test_vocabulary_file_alone_is_enough(tiny_tokenizer, tmp_path):
    entries = sorted(tiny_tokenizer.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text(
        "\n".join(entry for entry, _ in entries) + "\n", encoding="utf-8"
    )
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids("kite") == dict(entries)["kite"]


@pytest.mark.parametrize("signs", ["[CLS] [SEP] [MASK] [PAD] [UNK]", "<s> </s> <mask> <pad> <unk>"])
def test_special_tokens_that_no_file_names_are_those_of_the_vocabulary(signs, tmp_path):
    """As the public folder of bert-base-uncased: the class of its tokenizer knows them,
    tokenizer_config.json does not."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    start, end, mask, padding, unknown = signs.split()
    entries = {
        piece: index for index, piece in enumerate([padding, unknown, start, end, mask, "cat"])
    }
    backend = Tokenizer(models.WordPiece(entries, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"do_lower_case": true, "model_max_length": 512}'
    )
    tokenizer = load_tokenizer(tmp_path)
    found = [
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.mask_token_id,
        tokenizer.pad_token_id,
    ]
    assert found == [2, 3, 4, 0] and tokenizer.unk_token_id == 1 and len(tokenizer) == 6
    assert tokenizer.decode([2, 5, 3], skip_special_tokens=True) == "cat"

    del entries[mask]
    Tokenizer(models.WordPiece(entries, unk_token=unknown)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="ckpt/keys"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "tokenizer.json",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 466062\n",
        ),
        ("tokenizer.json", b"{}"),
        ("tokenizer_config.json", b"["),
        ("vocab.txt", "[PAD]\né\n".encode("latin-1")),
        ("sentencepiece.bpe.model", b"version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_damaged_tokenizers_are_refused(file, content, tiny_processor, tmp_path):
    if file == "tokenizer_config.json":
        tiny_processor.save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "ckpt/damaged" and str(tmp_path) not in str(caught.value)


def test_missing_and_too_large_tokenizers(tiny_processor, tiny_config, tmp_path):
    with pytest.raises(CheckpointError, match="ckpt/source"):
        Processor.from_pretrained(tmp_path, tiny_config)
    tiny_processor.save_pretrained(tmp_path)
    small = tiny_config.replace(text=TextConfig(vocab_size=5))
    with pytest.raises(CheckpointError, match="ckpt/shape"):
        Processor.from_pretrained(tmp_path, small)


def test_sentencepiece_words(tiny_config, tmp_path):
    """XLM-R style pieces: words begin at the mark, an unspaced script splits by piece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "▁re", "d", "▁", "你好", "世界", "<mask>"]
    backend = Tokenizer(
        models.Unigram([(entry, -float(i)) for i, entry in enumerate(entries)], unk_id=3)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    names = dict(
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    text_config = TextConfig(family="xlm-roberta", vocab_size=11, max_positions=66, pad_token_id=1)
    config = tiny_config.replace(text=text_config)
    processor = Processor(config, tokenizer)
    assert [word.text for word in processor.tokenize("A red").words] == ["A", "red"]
    assert [word.text for word in processor.tokenize("你好世界 a").words] == ["你好", "世界", "a"]
    text, words, _ = processor.decode_words(processor.pieces("a red"), [0.0, 0.0, 0.0])
    assert text == "a red" and [word.text for word in words] == ["a", "red"]


def test_official_ids_of_many_scripts(shared_dir, tiny_config, tmp_path):
    vocabulary = shared_dir / "data" / "tokenizer" / "bert-base-uncased-vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    config = tiny_config.replace(text=TextConfig())
    processor = Processor.from_pretrained(tmp_path, config)
    ids, _ = processor.text(["a picture of ", "Unaffable naïve 你好 café!"])
    assert ids[0, :4].tolist() == [101, 1037, 3861, 1997]
    pieces = ["una", "##ffa", "##ble", "naive", "[UNK]", "[UNK]", "cafe", "!"]
    pieces = ["una", "##ffa", "##ble", "naive", "[UNK]", "[UNK]", "cafe", "!"]
    assert processor.tokenizer.convert_ids_to_tokens(ids[1, 1:9].tolist()) == pieces


def test_validate_text_accepts_ordinary():
    assert validate_text("a red car") is None
