"""MSRVTT-QA and MSVD-QA -> {train,val,test}.jsonl of videos with a question and the index of the
answer; labels.json.

    python -m train.prepare.video_qa --dataset msrvtt --out data/msrvtt_qa

Put the authors' {train,val,test}_qa.json (https://github.com/xudejing/video-question-answering)
into OUT/raw and the videos into OUT/videos. The most frequent training answers are the classes;
others get -100: not learnt, and always wrong when measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from train.prepare.common import arguments, need, read_json, run, write_json, write_json_lines

CLASSES = {"msrvtt": 1500, "msvd": 1000}
COUNTS = {
    "msrvtt": {"train": 158_581, "val": 12_278, "test": 72_821},
    "msvd": {"train": 30_933, "val": 6_415, "test": 13_157},
}
"""Numbers of questions."""


def labels(questions: Iterable[dict[str, Any]], count: int) -> dict[str, int]:
    """The most frequent answers by index, ties in alphabetical order."""
    counts = Counter(question["answer"] for question in questions)
    chosen = sorted(counts, key=lambda answer: (-counts[answer], answer))[:count]
    return {answer: index for index, answer in enumerate(chosen)}


def entries(
    questions: Iterable[dict[str, Any]], known: dict[str, int], names: dict[int, str]
) -> Iterator[dict[str, Any]]:
    for question in questions:
        video = question.get("video_id", question.get("video"))
        name = names.get(video, f"video{video}" if isinstance(video, int) else str(video))
        yield {
            "video": f"videos/{name}.mp4",
            "question": question["question"],
            "label": known.get(question["answer"], -100),
        }


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], dataset={"required": True, "choices": list(CLASSES)}
    )
    source = "https://github.com/xudejing/video-question-answering"
    parts = {
        name: read_json(need(f"{name}_qa.json", options.raw, source))
        for name in ("train", "val", "test")
    }
    known = labels(parts["train"], CLASSES[options.dataset])
    names: dict[int, str] = {}
    if options.dataset == "msvd":  # numbers stand for YouTube names: "name vid1" a line
        for line in need("youtube_mapping.txt", options.raw, source).read_text().splitlines():
            name, number = line.split()
            names[int(number.removeprefix("vid"))] = name
    write_json(options.out / "labels.json", known)
    for name, questions in parts.items():
        found, published = entries(questions, known, names), COUNTS[options.dataset][name]
        write_json_lines(options.out / f"{name}.jsonl", found, published)


if __name__ == "__main__":
    run(main)
