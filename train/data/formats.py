"""How an entry of an annotation file becomes a record (see `train.data.records`); one function a
format.

To add a dataset with fields of its own: a function here and its name in `FORMATS`. The first five
are the official pre-training files, the others the official fine-tuning files as `train.prepare`
writes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from PIL import Image

from train.data.boxes import check_fractions, to_fractions
from train.data.entries import Entries
from train.data.video import FileFrames
from x2vlm.errors import ConfigError, DataError
from x2vlm.texts import clean_caption

Record = dict[str, Any]
ANNOTATORS = 10
"""Answers that a question of VQA v2 has; its soft accuracy is defined for so many."""


def image_text(entry: dict[str, Any], file: Entries) -> Record:
    """`image` (path, base64 or member of the shard; also under `binary`) and `caption` or
    `captions`."""
    return {"image": _image(entry, file), "captions": captions_of(entry)}


def region_text(entry: dict[str, Any], file: Entries) -> Record:
    """`image`, maybe `caption`, and `elems`: `bb` (x, y, w, h in pixels, inside the image),
    `caption`, maybe `attributes`.

    An element with several captions or attributes (by language, say) has every combination as
    `texts`.
    """
    image = _image(entry, file)
    regions = []
    for element in entry["elems"]:
        attributes = (
            [f"{attribute} " for attribute in _texts(element["attributes"])]
            if element.get("attributes")
            else [""]
        )
        texts = [
            attribute + caption
            for attribute in attributes
            for caption in _texts(element["caption"])
        ]
        region = {"text": texts[0], "box": to_fractions(element["bb"], *image.size)}
        regions.append(region | ({"texts": texts} if len(texts) > 1 else {}))
    if not regions:
        raise DataError("There are no elements.", "data/entry")
    return {
        "image": image,
        "captions": _texts(entry["caption"]) if entry.get("caption") else [],
        "regions": regions,
    }


def video_text(entry: dict[str, Any], file: Entries) -> Record:
    """`video_frames` (encoded frames, or videos of them with `is_continuous`) or `video` (a file),
    and `text` or `caption`."""
    texts = captions_of(entry)
    if "video" in entry:
        return {"frames": _video(entry["video"], file), "captions": texts}
    frames = entry["video_frames"]
    if frames and isinstance(frames[0], list):
        frames, texts = _join_videos(frames, texts, bool(entry.get("is_continuous")))
    if not frames:
        raise DataError("The video has no frames.", "data/entry")
    return {"frames": [file.image(frame) for frame in frames], "captions": texts}


def parallel_text(entry: dict[str, Any], file: Entries) -> Record:
    """`source_text` and `target_text`, the same in two languages."""
    return {"captions": [_caption(entry["source_text"]), _caption(entry["target_text"])]}


def text(entry: dict[str, Any], file: Entries) -> Record:
    """`text`."""
    return {"captions": _texts(entry["text"])}


def question_answer(entry: dict[str, Any], file: Entries) -> Record:
    """`question`, `answer` (of ten annotators, or one), `image` or video; Visual Genome answers
    (`dataset: vg`) weigh 0.5. Without `answer`, as in a test part, it can only be answered."""
    about = {name: entry[name] for name in ("question_id",) if name in entry}
    about["question"] = _text(entry["question"])
    if "answer" not in entry:
        return _visual(entry, file) | {"questions": [about]}
    answer = entry["answer"]
    given = [_text(text) for text in ([answer] if isinstance(answer, str) else answer)]
    if not given:
        raise DataError("The question has no answer.", "data/entry")
    share = 0.5 if entry.get("dataset") == "vg" else 1.0
    weights = {text: share * count / len(given) for text, count in Counter(given).items()}
    question = about | {"answers": weights}
    return _visual(entry, file) | {
        "questions": [question | ({"annotations": given} if len(given) == ANNOTATORS else {})]
    }


def referring(entry: dict[str, Any], file: Entries) -> Record:
    """`text` and `box` (x, y, w, h in pixels) in `image`."""
    image = _image(entry, file)
    return {
        "image": image,
        "regions": [
            {"text": _caption(entry["text"]), "box": to_fractions(entry["box"], *image.size)}
        ],
    }


def image_pair(entry: dict[str, Any], file: Entries) -> Record:
    """`sentence`, `label` (true or false, also as a word) and `images` (left, right)."""
    label = entry["label"]
    if str(label) not in ("True", "False", "true", "false", "0", "1"):
        raise DataError(f"The label {label!r} is neither true nor false.", "data/entry")
    images = [file.image(source) for source in entry["images"]]
    if len(images) != 2:
        raise DataError(f"There are {len(images)} pictures instead of two.", "data/entry")
    return {
        "images": images,
        "statement": _caption(entry["sentence"]),
        "label": str(label) in ("True", "true", "1"),
    }


def caption_pair(entry: dict[str, Any], file: Entries) -> Record:
    """Two `images` and two `captions`, the first true of the first alone (Winoground)."""
    images, captions = entry["images"], captions_of({"captions": entry["captions"]})
    if len(images) != 2 or len(captions) != 2:
        raise DataError("There are not two images and two captions.", "data/entry")
    return {"images": [file.image(source) for source in images], "captions": captions}


def labelled(entry: dict[str, Any], file: Entries) -> Record:
    """`question` or `sentence`, `label` (index in the closed list, -100: not in it), `image` or
    video."""
    statement = _caption(entry["question"] if "question" in entry else entry["sentence"])
    return _visual(entry, file) | {"statement": statement, "label": int(entry["label"])}


def multiple_choice(entry: dict[str, Any], file: Entries) -> Record:
    """`question`, `choices` (texts), `label` (index of the right one), image or video, and maybe
    `kinds`, names of the groups of questions that it belongs to (NExT-QA)."""
    choices, label = [_text(choice) for choice in entry["choices"]], int(entry["label"])
    if not 0 <= label < len(choices):
        raise DataError(f"The label {label} is none of 0 to {len(choices) - 1}.", "data/entry")
    return _visual(entry, file) | {
        "statement": _caption(entry["question"]),
        "choices": choices,
        "label": label,
        "kinds": list(entry.get("kinds", ())),
    }


def attributes(entry: dict[str, Any], file: Entries) -> Record:
    """`box` (x, y, w, h in pixels) in `image`, which becomes what the box shows, and `attributes`:
    a list of 1 (has it), 0 (has it not) and -1 (unknown) (OVAD)."""
    image, labels = _image(entry, file), entry["attributes"]
    if not set(labels) <= {1, 0, -1}:
        raise DataError("The attributes are not a list of 1, 0 and -1.", "data/entry")
    to_fractions(entry["box"], *image.size)
    x, y, w, h = (int(value) for value in entry["box"])
    return {"image": image.crop((x, y, x + max(1, w), y + max(1, h))), "attributes": labels}


def record(entry: dict[str, Any], file: Entries) -> Record:
    """A record as `train.data.shards` writes it: `images_as` says whether the images are `image`,
    `frames` or `images`; the boxes of `regions` and `objects` are fractions."""
    for item in (*entry.get("regions", ()), *entry.get("objects", ())):
        check_fractions(item["box"])
    images = [file.image(content) for content in entry["image_members"]]
    name = entry["images_as"]
    texts = {
        key: value
        for key, value in entry.items()
        if key not in ("image_members", "images_as", "image")
    }
    return texts | {name: images[0] if name == "image" else images}


FORMATS: dict[str, Callable[[dict[str, Any], Entries], Record]] = {
    "image_text": image_text,
    "region_text": region_text,
    "video_text": video_text,
    "parallel_text": parallel_text,
    "text": text,
    "question_answer": question_answer,
    "referring": referring,
    "image_pair": image_pair,
    "caption_pair": caption_pair,
    "labelled": labelled,
    "multiple_choice": multiple_choice,
    "attributes": attributes,
    "record": record,
}

BY_IMAGE = frozenset(("image_text", "region_text", "video_text", "record"))
"""Formats in which several entries may tell of one image or video (see `image_id`). Such entries
are measured as one record with everything that is said of it."""


def record_format(name: str) -> Callable[[dict[str, Any], Entries], Record]:
    """Raises `ConfigError` for an unknown name."""
    if name not in FORMATS:
        raise ConfigError(
            f"Unknown data format {name!r}. Known formats: {', '.join(FORMATS)}.", "config/value"
        )
    return FORMATS[name]


def image_id(entry: dict[str, Any], file: Entries) -> Any:
    """What is equal for entries of one image or video: their `image_id`, else the path or content
    of what they show. None for entries of text alone and for pairs of images."""
    if entry.get("images_as") == "images":
        return None
    if entry.get("image_id") is not None:
        return entry["image_id"]
    for key in ("image_members", "binary", "image", "video", "video_frames"):
        if key in entry:
            return file.identity(entry[key])
    return None


@lru_cache(maxsize=1)
def _decoded(file: Entries, source: str | bytes) -> Image.Image:
    """Remembered, since entries of one image often follow each other; not to be changed."""
    return file.image(source)


def _image(entry: dict[str, Any], file: Entries) -> Image.Image:
    return _decoded(file, entry["binary"] if "binary" in entry else entry["image"])


def _visual(entry: dict[str, Any], file: Entries) -> Record:
    if "video" in entry:
        return {"frames": _video(entry["video"], file)}
    if "video_frames" in entry:
        return {"frames": [file.image(frame) for frame in entry["video_frames"]]}
    return {"image": _image(entry, file)}


@lru_cache(maxsize=1)
def _video(source: str, file: Entries) -> FileFrames:
    """The frames of a video; see `_decoded`."""
    return FileFrames(file.file(source))


def captions_of(entry: dict[str, Any]) -> list[str]:
    """The texts under `caption`, `captions`, `desc` or `text`. Raises `KeyError` or `DataError`."""
    for key in ("caption", "captions", "desc", "text"):
        if key in entry:
            return _texts(entry[key])
    raise KeyError("caption")


def _texts(value: Any) -> list[str]:
    """A text, a list of texts or dicts, or a dict language -> text; at least one, none empty."""
    if isinstance(value, dict):
        value = [
            text
            for texts in value.values()
            for text in (texts if isinstance(texts, list) else [texts])
        ]
    values = [value] if isinstance(value, str) else list(value)
    return [
        _caption(text)
        for item in values
        for text in (_texts(item) if isinstance(item, dict) else [item])
    ] or [_text("")]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"The text is {'empty' if value in ('', None) else repr(value)[:40]}.", "data/text"
        )
    return value


def _caption(value: Any) -> str:
    """A text of which the cleaning leaves something. Raises `DataError` or `TextError`."""
    clean_caption(_text(value))
    return value


def _join_videos(
    videos: list[list[str]], texts: list[str], continuous: bool
) -> tuple[list[str], list[str]]:
    """Parallel videos and texts without those that are only "[Music]"; continuous ones become one
    video with one text."""
    kept = [
        (video, text)
        for video, text in zip(videos, texts, strict=True)
        if text.strip() != "[Music]"
    ]
    if not kept:
        raise DataError("Every video is only music.", "data/entry")
    if not continuous:
        return kept[0][0], [kept[0][1]]
    return [frame for video, _ in kept for frame in video], [" ".join(text for _, text in kept)]
