"""GQA for training, xGQA for the test -> {train,val}.jsonl, test_{en,bn,de,id,ko,pt,ru,zh}.jsonl
and answer_list.json.

    python -m train.prepare.xgqa --out data/xgqa [--shots 1 5 10 20 25 48]

Put LXMERT's train.json, valid.json and trainval_ans2label.json of GQA
(https://github.com/airsplay/lxmert) into OUT/raw; the translated questions come from IGLUE. `val`
is 5 % of the validation images. Images: GQA's, in OUT/images.
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
    read_json,
    run,
    stable_share,
    write_json,
    write_json_lines,
)

URL = f"{IGLUE}/xGQA/annotations/few_shot"
SOURCE = "LXMERT's copy of GQA, https://github.com/airsplay/lxmert"
LANGUAGES = ("en", "bn", "de", "id", "ko", "pt", "ru", "zh")
VALIDATION = 0.05


def english(questions: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """LXMERT's questions; all answers of a question weigh the same, as officially, and those
    without one are dropped."""
    for question in questions:
        answers = list(question["label"])
        if answers:
            yield {
                "image": f"images/{question['img_id']}.jpg",
                "question_id": question["question_id"],
                "question": question["sent"],
                "answer": answers[0] if len(answers) == 1 else answers,
            }


def translated(questions: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Questions in another language, whose answers stay English."""
    for number, question in questions.items():
        image = f"images/{question['imageId']}.jpg"
        yield {
            "image": image,
            "question_id": number,
            "question": question["question"],
            "answer": question["answer"],
        }


def main() -> None:
    options = arguments(__doc__.splitlines()[0], shots=SHOTS)
    write_json(
        options.out / "answer_list.json",
        list(read_json(need("trainval_ans2label.json", options.raw, SOURCE))),
    )
    write_json_lines(
        options.out / "train.jsonl", english(read_json(need("train.json", options.raw, SOURCE)))
    )
    held_out = english(read_json(need("valid.json", options.raw, SOURCE)))
    write_json_lines(
        options.out / "val.jsonl",
        (entry for entry in held_out if stable_share(entry["image"]) < VALIDATION),
    )
    for language in LANGUAGES:
        questions = read_json(
            fetch(f"test_{language}.json", f"{URL}/{language}/test.json", options.raw)
        )
        write_json_lines(options.out / f"test_{language}.jsonl", translated(questions))
        for shots in options.shots:
            name = f"train_{shots}.json"
            path = fetch(f"{language}_{name}", f"{URL}/{language}/{name}", options.raw)
            few = options.out / f"few_shot_{language}_{shots}.jsonl"
            write_json_lines(few, translated(read_json(path)))


if __name__ == "__main__":
    run(main)
