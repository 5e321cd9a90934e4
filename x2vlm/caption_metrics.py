"""BLEU, ROUGE-L and CIDEr-D of captions, with the arithmetic of the COCO caption evaluation but
without Java.

Candidates are one caption an image, references several. The tokeniser follows the Penn Treebank
rules that matter here. METEOR and SPICE are left out: they need Java and downloads.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

_CLITICS = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))\b")
_TOKEN = re.compile(r"n't(?!\w)|'(?:s|re|ve|ll|d|m)(?!\w)|\w+(?:[.,]\d+)*(?:[-'/&]\w+)*|[^\w\s]")
_WORD = re.compile(r"\w")


def tokenize(text: str) -> list[str]:
    """Lower-case tokens: "don't" is `do n't`, "dog's" is `dog 's`, punctuation is dropped,
    hyphenated words stay whole."""
    return [
        token for token in _TOKEN.findall(_CLITICS.sub(r" \1", text.lower())) if _WORD.search(token)
    ]


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Corpus BLEU-1 to BLEU-4 in [0, 1]; the reference length of an image is the one closest to its
    candidate."""
    matches, guesses = [0] * 4, [0] * 4
    length = reference_length = 0
    for candidate, group in zip(candidates, references, strict=True):
        tokens, others = tokenize(candidate), [tokenize(reference) for reference in group]
        length += len(tokens)
        reference_length += min(
            (len(other) for other in others), key=lambda n: (abs(n - len(tokens)), n)
        )
        for n in range(1, 5):
            counts, most = _ngrams(tokens, n), Counter()
            for other in others:
                most |= _ngrams(other, n)
            matches[n - 1] += sum((counts & most).values())
            guesses[n - 1] += max(0, len(tokens) - n + 1)
    scores, logarithm = [], 0.0
    penalty = (
        1.0
        if length >= reference_length or length == 0
        else math.exp(1 - reference_length / length)
    )
    for n in range(4):
        logarithm += math.log((matches[n] + 1e-15) / (guesses[n] + 1e-9))
        scores.append(penalty * math.exp(logarithm / (n + 1)))
    return scores


def rouge_l(
    candidates: Sequence[str], references: Sequence[Sequence[str]], beta: float = 1.2
) -> float:
    """Mean F-measure of the longest common subsequence, best precision and best recall over the
    references."""
    scores = []
    for candidate, group in zip(candidates, references, strict=True):
        tokens, others = tokenize(candidate), [tokenize(reference) for reference in group]
        common = [(_longest_common(tokens, other), other) for other in others]
        precision = max((n / len(tokens) for n, _ in common), default=0.0) if tokens else 0.0
        recall = max((n / len(other) for n, other in common if other), default=0.0)
        both = precision and recall
        scores.append(
            (1 + beta**2) * precision * recall / (recall + beta**2 * precision) if both else 0.0
        )
    return sum(scores) / len(scores)


def cider_d(
    candidates: Sequence[str], references: Sequence[Sequence[str]], sigma: float = 6.0
) -> float:
    """Mean of `cider_d_scores`."""
    scores = cider_d_scores(candidates, references, sigma)
    return sum(scores) / len(scores)


def cider_d_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], sigma: float = 6.0
) -> list[float]:
    """CIDEr-D of each image (Vedantam et al., arXiv 1411.5726): clipped tf-idf n-gram cosines with
    a length penalty, times 10.

    An n-gram weighs the more, the fewer of these images have it in their references. Where every
    image has every n-gram, as a single image always does, all weights and the scores are 0; a
    `UserWarning` says so.
    """
    groups = [ngrams_of(group) for group in references]
    frequency = document_frequency(groups)
    if all(images == len(references) for images in frequency.values()):
        warnings.warn(
            "CIDEr-D is 0 whatever the captions are: it weighs words by how few of the images have "
            f"them in their references, and here all of them have all words ({len(references)} "
            "measured). Measure several different images.",
            stacklevel=2,
        )
    return [
        caption_cider_d(candidate, group, frequency, len(references), sigma)
        for candidate, group in zip(candidates, groups, strict=True)
    ]


def ngrams_of(texts: Sequence[str]) -> list[Counter]:
    """Of each text how often it has every n-gram of one to four tokens."""
    return [_all_ngrams(tokenize(text)) for text in texts]


def document_frequency(groups: Iterable[Sequence[Counter]]) -> Counter:
    """In the references of how many images each n-gram stands; a group of `ngrams_of` an image."""
    frequency: Counter = Counter()
    for group in groups:
        frequency.update(set().union(*group))
    return frequency


def caption_cider_d(
    candidate: str,
    references: Sequence[Counter],
    frequency: Counter,
    documents: int,
    sigma: float = 6.0,
) -> float:
    """CIDEr-D of one caption.

    Args:
        references: `ngrams_of` the references of its image.
        frequency: `document_frequency` of `documents` images; an n-gram that it lacks counts as
            standing in one.
    """
    log_documents = math.log(max(1, documents))
    vector = _tf_idf(_all_ngrams(tokenize(candidate)), frequency, log_documents)
    similarities = [
        _similarity(vector, _tf_idf(counts, frequency, log_documents), sigma)
        for counts in references
    ]
    return 10 * sum(similarities) / len(similarities)


def caption_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """All of the above; BLEU and ROUGE-L in [0, 1]."""
    scores = {f"bleu_{n}": score for n, score in enumerate(bleu(candidates, references), start=1)}
    return scores | {
        "rouge_l": rouge_l(candidates, references),
        "cider_d": cider_d(candidates, references),
    }


def _ngrams(tokens: Sequence[str], n: int) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def _all_ngrams(tokens: Sequence[str]) -> Counter:
    return sum((_ngrams(tokens, n) for n in range(1, 5)), Counter())


def _tf_idf(
    counts: Counter, frequency: Counter, log_documents: float
) -> tuple[list[dict], list[float], int]:
    """Weights by n-gram, for each n; their norms; the length in bigrams, as the reference
    implementation takes it."""
    weights: list[dict] = [{} for _ in range(4)]
    for gram, count in counts.items():
        weights[len(gram) - 1][gram] = count * (log_documents - math.log(max(1, frequency[gram])))
    norms = [math.sqrt(sum(weight**2 for weight in part.values())) for part in weights]
    return weights, norms, sum(count for gram, count in counts.items() if len(gram) == 2)


def _similarity(candidate, reference, sigma: float) -> float:
    weights, norms, length = candidate
    other_weights, other_norms, other_length = reference
    total = 0.0
    for n in range(4):
        dot = sum(
            min(w, other_weights[n].get(gram, 0.0)) * other_weights[n].get(gram, 0.0)
            for gram, w in weights[n].items()
        )
        if norms[n] and other_norms[n]:
            total += dot / (norms[n] * other_norms[n])
    return total / 4 * math.exp(-((length - other_length) ** 2) / (2 * sigma**2))


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        previous = 0
        for j, b in enumerate(second, start=1):
            previous, row[j] = row[j], previous + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]
