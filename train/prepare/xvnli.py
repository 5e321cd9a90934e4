"""XVNLI (IGLUE) -> train.jsonl, dev.jsonl and test_{en,ar,es,fr,ru}.jsonl: an image replaces the
premise.

    python -m train.prepare.xvnli --out data/xvnli

Put IGLUE's train.jsonl, dev.jsonl and test_<language>.jsonl (https://github.com/e-bug/iglue) into
OUT/raw. Images: Flickr30K.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import arguments, need, read_json_lines, write_json_lines

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
    options = arguments(__doc__.splitlines()[0])
    files = {"train": "train.jsonl", "dev": "dev.jsonl"} | {
        f"test_{code}": f"test_{code}.jsonl" for code in LANGUAGES
    }
    for ours, theirs in files.items():
        path = need(theirs, options.raw, "https://github.com/e-bug/iglue")
        write_json_lines(options.out / f"{ours}.jsonl", entries(read_json_lines(path)))


if __name__ == "__main__":
    main()
