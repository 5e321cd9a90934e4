"""Our metrics against the field's scorers: 20,000 answers by a record of the official evaluation,
5,000 real captions by pycocoevalcap where Java and the photos are."""

import shutil

import pytest

from benchmarks.agreement import (
    OFFICIAL,
    answers,
    digest,
    ptb_tokens,
    read_captions,
    scores_of_tokens,
    split,
    their_scores,
)
from train.metrics.answers import soft_accuracy
from x2vlm.caption_metrics import caption_scores
from x2vlm.stickers import make_record, split_seeds


def test_twenty_thousand_answers_are_as_right_as_officially():
    accuracies = [soft_accuracy(given, right) for given, right in answers(20_000)]
    assert digest(accuracies) == OFFICIAL
    assert 0.5 < sum(accuracies) / len(accuracies) < 0.55  # rights and wrongs, not all of a kind
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= {round(value, 6) for value in accuracies}


def test_the_arithmetic_is_that_of_pycocoevalcap():
    pytest.importorskip("pycocoevalcap")
    first = split_seeds("test").start
    groups = [make_record(first + n, "test", size=16)["captions"] for n in range(40)]
    theirs = their_scores(*split(groups))
    assert 0 < theirs["bleu_4"] < 1 and 0 < theirs["cider_d"] < 10
    assert scores_of_tokens(*split(groups)) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="the scorers need Java")
def test_captions_score_as_in_pycocoevalcap(shared_dir):
    pytest.importorskip("pycocoevalcap")
    groups = read_captions([str(shared_dir / "data/flickr8k/*.tar")], 5000)
    assert len(groups) == 5000
    tokens = ptb_tokens(groups)
    theirs = their_scores(*split(tokens))
    same_tokens, own_tokens = scores_of_tokens(*split(tokens)), caption_scores(*split(groups))
    for name, score in theirs.items():
        assert same_tokens[name] == pytest.approx(score, abs=1e-6), name
        assert own_tokens[name] == pytest.approx(score, rel=5e-4), name
