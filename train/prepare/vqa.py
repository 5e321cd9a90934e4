"""VQA v2 and Visual Genome questions -> {train,val,minival,vg,test}.jsonl and answer_list.json.

    python -m train.prepare.vqa --out data/vqa

`minival` is 2 % of the validation images, in neither `val` nor `vg`, so that training leaves
something to choose by. The answer list holds the answers that at least nine annotators gave in
train and val together (as the usual 3,129; the official file of 3,128 answers differs slightly and
can be put in its place).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from train.metrics.answers import normalize_answer
from train.prepare.common import (
    arguments,
    fetch,
    read_json,
    run,
    stable_share,
    write_json,
    write_json_lines,
)

VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
GENOME = "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset"
PARTS = {"train": "train2014", "val": "val2014", "test": "test2015"}
LEAST_COUNT = 9
MINIVAL = 0.02


def entries(
    questions: list[dict[str, Any]], annotations: list[dict[str, Any]], part: str
) -> Iterator[dict[str, Any]]:
    """Questions with the ten given answers; without answers for the test part."""
    answers = {a["question_id"]: [answer["answer"] for answer in a["answers"]] for a in annotations}
    for question in questions:
        image = f"{part}/COCO_{part}_{question['image_id']:012d}.jpg"
        entry = {
            "image": image,
            "question_id": question["question_id"],
            "question": question["question"],
            "dataset": "vqa",
        }
        yield entry | ({"answer": answers[question["question_id"]]} if answers else {})


def genome(
    images: list[dict[str, Any]], known: set[str], left_out: set[int]
) -> Iterator[dict[str, Any]]:
    """Visual Genome questions whose answer is in the list, but for some images."""
    for picture in images:
        for item in picture["qas"]:
            answer = normalize_answer(item["answer"].rstrip("."))
            if answer in known and item["image_id"] not in left_out:
                image = f"VG_100K/{item['image_id']}.jpg"
                yield {
                    "image": image,
                    "question_id": item["qa_id"],
                    "question": item["question"],
                    "answer": answer,
                    "dataset": "vg",
                }


def answer_list(groups: Iterable[list[str]], least: int = LEAST_COUNT) -> list[str]:
    """Normalised most given answers of the questions that occur at least `least` times, most
    frequent first."""
    counts = Counter(normalize_answer(Counter(answers).most_common(1)[0][0]) for answers in groups)
    return [
        answer
        for answer, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= least and answer
    ]


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in PARTS.items():
        archive = f"v2_Questions_{name.capitalize()}_mscoco.zip"
        questions = read_json(
            fetch(archive, f"{VQA}/{archive}", options.raw),
            f"v2_OpenEnded_mscoco_{part}_questions.json",
        )
        annotations = {"annotations": []}
        if name != "test":
            archive = f"v2_Annotations_{name.capitalize()}_mscoco.zip"
            annotations = read_json(
                fetch(archive, f"{VQA}/{archive}", options.raw),
                f"v2_mscoco_{part}_annotations.json",
            )
        found[name] = list(entries(questions["questions"], annotations["annotations"], part))
    answers = answer_list(entry["answer"] for name in ("train", "val") for entry in found[name])
    write_json(options.out / "answer_list.json", answers)
    is_mini = {entry["image"]: stable_share(entry["image"]) < MINIVAL for entry in found["val"]}
    write_json_lines(options.out / "train.jsonl", found["train"])
    write_json_lines(
        options.out / "val.jsonl", (entry for entry in found["val"] if not is_mini[entry["image"]])
    )
    write_json_lines(
        options.out / "minival.jsonl", (entry for entry in found["val"] if is_mini[entry["image"]])
    )
    write_json_lines(options.out / "test.jsonl", found["test"])
    images, of_coco = (
        read_json(
            fetch(f"{name}.json.zip", f"{GENOME}/{name}.json.zip", options.raw), f"{name}.json"
        )
        for name in ("question_answers", "image_data")
    )
    # The number in COCO_val2014_000000000042.jpg.
    mini = {int(image[-16:-4]) for image, chosen in is_mini.items() if chosen}
    left_out = {picture["image_id"] for picture in of_coco if picture["coco_id"] in mini}
    write_json_lines(options.out / "vg.jsonl", genome(images, set(answers), left_out))


if __name__ == "__main__":
    run(main)
