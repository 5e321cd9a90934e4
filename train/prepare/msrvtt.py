"""MSR-VTT retrieval (1k-A split) -> {train,val,test}.jsonl of videos with captions.

    python -m train.prepare.msrvtt --out data/msrvtt

Put the authors' MSRVTT_data.json and the 1k-A lists MSRVTT_train.9k.csv and
MSRVTT_JSFUSION_test.csv into OUT/raw and the videos into OUT/videos. `val` is 500 videos of the
training list.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from train.prepare.common import arguments, need, read_json, run, stable_share, write_json_lines

SOURCE = "the MSR-VTT authors; mirrors are linked from https://github.com/ArrowLuo/CLIP4Clip"


def entries(videos: Sequence[str], captions: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    for video in videos:
        yield {"video": f"videos/{video}.mp4", "captions": captions[video], "image_id": video}


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    captions: dict[str, list[str]] = defaultdict(list)
    for sentence in read_json(need("MSRVTT_data.json", options.raw, SOURCE))["sentences"]:
        captions[sentence["video_id"]].append(sentence["caption"].strip())
    with need("MSRVTT_train.9k.csv", options.raw, SOURCE).open() as file:
        train = [row["video_id"] for row in csv.DictReader(file)]
    with need("MSRVTT_JSFUSION_test.csv", options.raw, SOURCE).open() as file:
        test = [
            {"video": f"videos/{row['video_id']}.mp4", "captions": [row["sentence"]]}
            for row in csv.DictReader(file)
        ]
    held_out = set(sorted(train, key=stable_share)[:500])
    write_json_lines(
        options.out / "train.jsonl",
        entries([video for video in train if video not in held_out], captions),
    )
    write_json_lines(
        options.out / "val.jsonl",
        entries([video for video in train if video in held_out], captions),
    )
    write_json_lines(options.out / "test.jsonl", test)


if __name__ == "__main__":
    run(main)
