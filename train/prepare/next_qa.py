"""NExT-QA, multiple choice -> {train,val,test}.jsonl of videos with a question and five answers.

    python -m train.prepare.next_qa --out data/next_qa

Put the authors' {train,val,test}.csv and map_vid_vidorID.json (https://github.com/doc-doc/NExT-QA)
into OUT/raw, and the videos of VidOR as OUT/videos/<folder>/<number>.mp4. A question is of a kind
(CW why, CH how, TN before or after, TC when, DC counting, DL where, DO other) and of its group
(C causal, T temporal, D descriptive); as in the authors' evaluation TP counts as TN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import (
    arguments,
    need,
    read_json,
    read_table,
    run,
    with_text,
    write_json_lines,
)

SOURCE = "https://github.com/doc-doc/NExT-QA (nextqa.zip)"
CHOICES = ("a0", "a1", "a2", "a3", "a4")
SPLITS = {"train": 34_132, "val": 4_996, "test": 8_564}
"""With their numbers of questions."""
COLUMNS = ("video", "question", "answer", "type", *CHOICES)


def entries(rows: Iterable[dict[str, str]], videos: dict[str, str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        kind = "TN" if row["type"] == "TP" else row["type"]
        yield {
            "video": f"videos/{videos[row['video']]}.mp4",
            "question": row["question"],
            "choices": [row[name] for name in CHOICES],
            "label": int(row["answer"]),
            "kinds": [kind[0], kind],
        }


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    videos = read_json(need("map_vid_vidorID.json", options.raw, SOURCE))
    for split, published in SPLITS.items():
        path = need(f"{split}.csv", options.raw, SOURCE)
        rows = with_text(
            read_table(path, COLUMNS, SOURCE), lambda row: row["question"], path.name, SOURCE
        )
        write_json_lines(options.out / f"{split}.jsonl", entries(rows, videos), published)


if __name__ == "__main__":
    run(main)
