"""WikiMatrix -> <language>.jsonl of English sentences with their translations.

    python -m train.prepare.wikimatrix --out data/wikimatrix --languages de fr cs ja zh

Pairs that the authors score below 1.04 are left out, as they advise.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from train.prepare.common import arguments, fetch, run, with_text, write_json_lines
from x2vlm.errors import DataError

URL = "https://dl.fbaipublicfiles.com/laser/WikiMatrix/v1"
LEAST = 1.04


def pairs(path: Path, english_first: bool) -> Iterator[dict[str, str]]:
    """Of a file of score, tab, first sentence, tab, second sentence. Raises `DataError` for another
    layout."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\n").split("\t")
            try:
                score, first, second = float(fields[0]), fields[1], fields[2]
            except (ValueError, IndexError):
                raise DataError(
                    f"{path.name}, line {number}: expected are a score and two sentences with tabs "
                    f"between them. The file comes from {URL}/.",
                    "data/format",
                ) from None
            if score >= LEAST:
                english, other = (first, second) if english_first else (second, first)
                yield {"source_text": english.strip(), "target_text": other.strip()}


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0],
        languages={"nargs": "+", "default": ["de", "fr", "cs", "ja", "zh"]},
    )
    for language in options.languages:
        name = f"WikiMatrix.{'-'.join(sorted(('en', language)))}.tsv.gz"
        path = fetch(name, f"{URL}/{name}", options.raw)
        found = with_text(pairs(path, language > "en"), lambda pair: pair["target_text"], name, URL)
        write_json_lines(options.out / f"{language}.jsonl", found)


if __name__ == "__main__":
    run(main)
