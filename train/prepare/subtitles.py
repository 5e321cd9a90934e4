"""HowTo100M and YT-Temporal-180M: videos with what is said in them -> pieces of videos, frames in
base64.

    python -m train.prepare.subtitles --dataset howto100m --out data/howto100m
    python -m train.prepare.subtitles --dataset yttemporal --out data/yttemporal

Neither publisher has videos: put them into OUT/videos/<id>.mp4; others are passed over. Put into
OUT/raw what the publishers do have: raw_caption.json of HowTo100M (read as a whole, 20 GB of
memory), or the annotations of YT-Temporal, an object a video with `info.id` and `subtitles`
[{"word", "time"}], as *.json or a line each of *.jsonl or *.jsonl.gz. Their cleaned transcript is
not used: it has no times.

A piece holds at most 16 subtitles, two frames of each. How the authors of X²-VLM cut videos is not
published.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from train.prepare.common import (
    arguments,
    need,
    read_json,
    read_json_lines,
    run,
    with_text,
    write_json_lines,
)
from x2vlm.errors import DataError, MediaError
from x2vlm.media import decode_video, video_seconds

SOURCES = {
    "howto100m": "https://www.di.ens.fr/willow/research/howto100m/ (raw_caption.zip)",
    "yttemporal": "https://rowanzellers.com/merlot/",
}
CLIPS = 16
AT = (0.25, 0.75)
"""Where in a subtitle's time its frames are taken."""
WORDS = 20
"""Of a subtitle that is put together from words."""
SIDE = 320
"""Pixels of a frame's shorter side at most."""

Clip = tuple[float, float, str]
"""From second, to second, text."""


def howto100m(raw: Path) -> Iterator[tuple[str, list[Clip]]]:
    """Name and subtitles of each video."""
    content = read_json(need("raw_caption.json", raw, SOURCES["howto100m"]))
    for name, said in content.items():
        yield name, list(zip(said["start"], said["end"], said["text"], strict=True))


def yttemporal(raw: Path) -> Iterator[tuple[str, list[Clip]]]:
    """The same, put together from words that have one time each."""
    files = sorted(path for kind in ("json", "jsonl", "jsonl.gz") for path in raw.glob(f"*.{kind}"))
    if not files:
        raise DataError(
            f"There are no annotations (*.json, *.jsonl, *.jsonl.gz) in {raw.name}/. They come "
            f"from {SOURCES['yttemporal']}.",
            "data/missing",
        )
    for path in files:
        for video in [read_json(path)] if path.suffix == ".json" else read_json_lines(path):
            try:
                words = [(word["time"], word["word"]) for word in video["subtitles"]]
                name = video["info"]["id"]
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"{path.name}: a video has no {error}; expected are info.id and subtitles of "
                    f"word and time. It comes from {SOURCES['yttemporal']}.",
                    "data/key",
                ) from None
            yield (
                name,
                [
                    (part[0][0], part[-1][0], " ".join(word for _, word in part))
                    for part in in_parts(words, WORDS)
                ],
            )


def in_parts(items: Sequence, size: int) -> list[Sequence]:
    return [items[start : start + size] for start in range(0, len(items), size)]


READERS = {"howto100m": howto100m, "yttemporal": yttemporal}


def pieces(videos: Iterable[tuple[str, list[Clip]]], folder: Path) -> Iterator[dict[str, Any]]:
    """Pieces of the videos that lie in `folder`; those that cannot be read are named."""
    for name, clips in videos:
        path = folder / f"{name}.mp4"
        if not path.is_file():
            continue
        data = path.read_bytes()
        try:
            end = video_seconds(data)
            told = [clip for clip in clips if clip[2].strip() and 0 <= clip[0] <= clip[1] <= end]
            for part in in_parts(told, CLIPS):
                times = [a + share * (b - a) for a, b, _ in part for share in AT]
                frames = list(map(_encoded, decode_video(data, times=times)))
                yield {
                    "video_frames": in_parts(frames, len(AT)),
                    "text": [text.strip() for _, _, text in part],
                    "is_continuous": True,
                }
        except MediaError as error:
            print(f"{path.name} is left out: {error.message}", flush=True)


def _encoded(frame: Image.Image) -> str:
    scale = min(1.0, SIDE / min(frame.size))
    size = round(frame.width * scale), round(frame.height * scale)
    file = io.BytesIO()
    frame.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0], dataset={"required": True, "choices": list(READERS)}
    )
    source = SOURCES[options.dataset]
    videos = with_text(
        READERS[options.dataset](options.raw),
        lambda video: "".join(text for _, _, text in video[1]),
        "the subtitles",
        source,
    )
    path = options.out / f"{options.dataset}.jsonl"
    write_json_lines(path, pieces(videos, options.out / "videos"))


if __name__ == "__main__":
    run(main)
