"""Decoded word pieces read as people write."""

import re

import pytest

from x2vlm.config import TextConfig
from x2vlm.detokenize import spaces_before
from x2vlm.processing import Processor

TEXTS = """
t-shirt
a ten-year-old boy, well-dressed
covid-19 and f-16
-5 degrees
a dog -- and a cat
5:30
5:30 p.m.
2.5
$3.50
version 3.5.2
10,000
1,000,000 people
1, 2, 3
in 1999, 200 people
u.s.
the u.s. flag
j.k. rowling
st. louis
no. 5
www.example.com
http://www.example.com/a
user@mail.com
don't
i'm sure they've said it's what you'd say
the dog's bowl
the dogs' bowl
five o'clock
l'eau
5'10
a 32" tv
1/2
7/11
$5
50%
#1
at&t
black & white
a sign that says 'stop'
'stop' is on a "no parking" sign
he says 'it's'.
a man (left) and a dog [right]
what is this? a dog! yes; a dog: here...
""".strip().splitlines()


def split(text):
    """As BERT's pre-tokenizer: words and single marks."""
    return re.findall(r"[^\W_]+|[^\w\s]|_", text)


@pytest.mark.parametrize("text", TEXTS)
def test_spaces_stand_where_people_write_them(text):
    words = split(text)
    spaced = zip(spaces_before(words), words, strict=True)
    assert "".join(" " * space + word for space, word in spaced) == text


@pytest.mark.parametrize("words", [[], ["'"], ['"', '"'], ["-"], ["-", "-"], ["."], list("'''a")])
def test_marks_alone_are_no_error(words):
    assert len(spaces_before(words)) == len(words)


def test_texts_survive_the_official_tokenizer(shared_dir, tiny_config, tmp_path):
    vocabulary = shared_dir / "data" / "tokenizer" / "bert-base-uncased-vocab.txt"
    (tmp_path / "vocab.txt").write_bytes(vocabulary.read_bytes())
    processor = Processor.from_pretrained(tmp_path, tiny_config.replace(text=TextConfig()))
    wrong = [text for text in TEXTS if processor.decode(processor.pieces(text)) != text]
    assert not wrong
