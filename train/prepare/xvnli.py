"""XVNLI (IGLUE) -> train.jsonl, dev.jsonl and test_{en,ar,es,fr,ru}.jsonl: an image replaces the
premise.

    python -m train.prepare.xvnli --out data/xvnli [--shots 1 5 10 20 25 48]

Put the English train.jsonl and dev.jsonl of XVNLI (linked from https://github.com/e-bug/iglue) into
OUT/raw; the other files come from IGLUE. Images: Flickr30K.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import (
    IGLUE,
    SHOTS,
    arguments,
    fetch,
    need,
    read_json_lines,
    run,
    write_json_lines,
)

LABELS = {"contradiction": 0, "entailment": 1, "neutral": 2}
LANGUAGES = ("en", "ar", "es", "fr", "ru")


def entries(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines without a clear label are dropped, as officially."""
    for line in lines:
        if line["gold_label"] in LABELS:
            image = f"{str(line['Flikr30kID']).removesuffix('.jpg')}.jpg"
            yield {
                "image": image,
                "sentence": line["sentence2"],
                "label": LABELS[line["gold_label"]],
            }


def main() -> None:
    options = arguments(__doc__.splitlines()[0], shots=SHOTS)
    for name in ("train", "dev"):
        path = need(f"{name}.jsonl", options.raw, "https://github.com/e-bug/iglue")
        write_json_lines(options.out / f"{name}.jsonl", entries(read_json_lines(path)))
    for language in LANGUAGES:
        parts = {"test": f"test_{language}"}
        parts |= {f"train_{shots}": f"few_shot_{language}_{shots}" for shots in options.shots}
        for theirs, ours in parts.items():
            url = f"{IGLUE}/XVNLI/annotations/{language}/{theirs}.jsonl"
            lines = read_json_lines(fetch(f"{theirs}_{language}.jsonl", url, options.raw))
            write_json_lines(options.out / f"{ours}.jsonl", entries(lines))


if __name__ == "__main__":
    run(main)
