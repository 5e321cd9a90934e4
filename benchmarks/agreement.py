"""Do our metrics agree with the field's scorers on real captions and many answers?

    python -m benchmarks.agreement --captions '../shared/data/flickr8k/*.tar' --images 5000

Captions: the first caption of each image is scored against its others by `x2vlm.caption_metrics`
and by pycocoevalcap, whose tokens are those of Stanford's PTB tokeniser (Java). What is left when
both get its tokens is the arithmetic; the rest is the tokeniser.

Answers: the soft accuracy of 20,000 made-up answers to questions with ten annotations each. The
official evaluation of VQA is no package; what it gave for these answers is recorded here as a
digest.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from unittest import mock

from train.data.files import FileRecords
from train.metrics.answers import soft_accuracy
from train.metrics.coco import require_coco
from x2vlm.caption_metrics import caption_scores, tokenize
from x2vlm.errors import X2VLMError

OFFICIAL = "2cdd85a284c66f8381a0f077b3dd677bdc24f5ee8f59cfce00d41c732fddc396"
"""Of the official accuracies of `answers(20_000)`, see `digest`."""
_ANSWERS = (
    "yes|no|2|3|10|0|1000|red|blue and white|black white|tennis racket|left|on table|it's raining|"
    "don't know|can't tell|10:30|5.5|grandma's house|t shirt|hot dog|mr smith|west|in water|"
    "couldn't say|birthday cake|stop|4 feet|o'clock|not sure|7 up|playing frisbee|cell phone"
)
TRUE_ANSWERS = _ANSWERS.split("|")
"""As the annotations of VQA v2 are published: lower case, numbers as digits, without articles."""
SPOKEN = {"2": "two", "3": "three", "10": "ten", "0": "none", "1000": "1,000"}
OTHERWISE = {"black white": "black/white", "t shirt": "t-shirt", "mr smith": "Mr. Smith"}
CHANGES = (
    lambda text, rng: text,
    lambda text, rng: text,
    lambda text, rng: SPOKEN.get(text, text),
    lambda text, rng: OTHERWISE.get(text, text),
    lambda text, rng: text.replace("'", ""),
    lambda text, rng: text.capitalize(),
    lambda text, rng: text.upper(),
    lambda text, rng: f"{text}.",
    lambda text, rng: f"{text}{rng.choice('!?,;')}",
    lambda text, rng: f"{rng.choice(('a', 'the', 'an', 'The'))} {text}",
    lambda text, rng: f' "{text}"\n',
    lambda text, rng: text.replace(" ", rng.choice((" - ", "-", "/", "  ", "\t", "_"))),
)


def answers(count: int, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A given answer, written in some way, and ten annotations of which it may be one."""
    rng = random.Random(seed)
    for _ in range(count):
        likely = rng.sample(TRUE_ANSWERS, 3)
        annotations = rng.choices(likely, weights=(6, 3, 1), k=10)
        given = rng.choice((*likely, rng.choice(TRUE_ANSWERS)))
        for _ in range(rng.randint(1, 2)):
            given = rng.choice(CHANGES)(given, rng)
        yield given, annotations


def digest(accuracies: Sequence[float]) -> str:
    """Equal for accuracies that are equal to six digits."""
    return hashlib.sha256(" ".join(f"{value:.6f}" for value in accuracies).encode()).hexdigest()


def read_captions(files: Sequence[str], images: int) -> list[list[str]]:
    """The captions of images that have several."""
    groups = (group for group in FileRecords(files).captions() if len(group) > 1)
    return [group for group, _ in zip(groups, range(images), strict=False)]


def ptb_tokens(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """The captions as tokens with spaces between them."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    told = {n: [{"caption": text} for text in group] for n, group in enumerate(groups)}
    return list(PTBTokenizer().tokenize(told).values())


def their_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """pycocoevalcap's scores of texts that are tokens already."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    said = {n: [text] for n, text in enumerate(candidates)}
    right = dict(enumerate(references))
    bleu, _ = Bleu(4).compute_score(right, said, verbose=0)
    scores = {f"bleu_{n}": float(value) for n, value in enumerate(bleu, start=1)}
    scores["rouge_l"] = float(Rouge().compute_score(right, said)[0])
    return scores | {"cider_d": float(Cider().compute_score(right, said)[0])}


def scores_of_tokens(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Our scores of texts that are tokens already."""
    with mock.patch("x2vlm.caption_metrics.tokenize", str.split):
        return caption_scores(candidates, references)


def split(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """First captions and the others."""
    return [group[0] for group in groups], [list(group[1:]) for group in groups]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agreement", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--captions", nargs="+", required=True, help="annotation files or shards")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--answers", type=int, default=20_000)
    options = parser.parse_args(arguments)
    try:
        require_coco()
        groups = read_captions(options.captions, options.images)
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    tokens = ptb_tokens(groups)
    pairs = [
        (text, ours, theirs.split())
        for group, told in zip(groups, tokens, strict=True)
        for text, theirs in zip(group, told, strict=True)
        if (ours := tokenize(text)) != theirs.split()
    ]
    count = sum(map(len, groups))
    print(f"{len(groups)} images, {count} captions; {len(pairs)} get other tokens, such as")
    for text, ours, theirs in pairs[:12]:
        odd = [word for word in (*ours, *theirs) if (word in ours) != (word in theirs)]
        print(f"    {text!r}: {' '.join(odd)}")
    theirs = their_scores(*split(tokens))
    rows = {
        "ours": caption_scores(*split(groups)),
        "ours, their tokens": scores_of_tokens(*split(tokens)),
    }
    print("| |" + "".join(f" {name} |" for name in theirs) + "\n|---" + "|---" * len(theirs) + "|")
    for name, scores in {"pycocoevalcap": theirs, **rows}.items():
        print(f"| {name} |" + "".join(f" {scores[key]:.6f} |" for key in theirs))
    accuracies = [soft_accuracy(given, right) for given, right in answers(options.answers)]
    print(
        f"{len(accuracies)} answers: mean accuracy {sum(accuracies) / len(accuracies):.6f}, "
        + ("as" if digest(accuracies) == OFFICIAL else "NOT as")
        + " the official evaluation gave them"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
