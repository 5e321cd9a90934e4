"""One task over a collection: what is asked of every item, and the loop that does it on this
machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from x2vlm.collections.sources import Item
from x2vlm.collections.writer import Record, Writer
from x2vlm.errors import MediaError, X2VLMError
from x2vlm.inference.batch import attempt
from x2vlm.inference.predictor import Predictor
from x2vlm.inference.scene import Scene, open_scene

ONE_TEXT = ("answer", "explain")
"""Tasks that ask one text of an image; the others ask any number."""
READERS = 2
"""Threads that open the next images while the model works."""

Progress = Callable[[int, int], None]
"""Called with (records written now, errors among them)."""


def listed(name: str) -> Callable[[Any], Record]:
    """Results in a list under a name."""
    return lambda results: {name: [result.to_dict() for result in results]}


def without_maps(groundings: Any) -> Record:
    """Groundings without their heat maps, which are large and can be made again."""
    plain = [grounding.to_dict() for grounding in groundings]
    return {"groundings": [{k: v for k, v in g.items() if k != "explanation"} for g in plain]}


RESULTS: dict[str, Callable[[Any], Record]] = {
    "caption": listed("captions"),
    "answer": lambda answers: answers.to_dict(),
    "ground": without_maps,
    "explain": lambda explanation: explanation.to_dict(),
    "match": listed("matches"),
}
"""Task -> what a record says of its result."""


@dataclass(frozen=True)
class Job:
    """What is asked of every item.

    Attributes:
        task: a method of `Predictor`, a key of `RESULTS`.
        texts: of every item that has none of its own.
        options: further arguments of the method.
        num_frames: of a video, None for the model's own number.
    """

    task: str
    texts: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    num_frames: int | None = None

    def described(self, predictor: Predictor) -> Record:
        """What decides the results of a run."""
        return {
            "task": self.task,
            "texts": list(self.texts),
            "options": dict(self.options),
            "frames": self.num_frames,
            "model": predictor.info.hash or predictor.info.name,
            "dtype": predictor.info.dtype,
        }

    def open(self, predictor: Predictor, item: Item) -> Scene | X2VLMError:
        """The item's image or video, not encoded yet."""
        if isinstance(item.media, X2VLMError):
            return item.media
        frames = predictor.info.num_frames if self.num_frames is None else self.num_frames
        found = attempt(open_scene, item.media, frames, None, None)
        if isinstance(found, MediaError) and isinstance(item.media, bytes):
            return MediaError(f"{item.id}: {found.message.partition(': ')[2]}", found.code)
        return found

    def records(
        self, predictor: Predictor, items: Sequence[Item], opened: Sequence[Scene | X2VLMError]
    ) -> list[Record]:
        """One record for every item, in their order."""
        good = [i for i, scene in enumerate(opened) if isinstance(scene, Scene)]
        scenes = predictor.encode([opened[i] for i in good])
        texts = [list(self.texts if items[i].texts is None else items[i].texts) for i in good]
        if self.task in ONE_TEXT:
            texts = [" ".join(one) for one in texts]
        arguments = () if self.task == "caption" else (texts,)
        results = getattr(predictor, self.task)(scenes, *arguments, **self.options)
        found = dict(zip(good, zip(scenes, results, strict=True), strict=True))
        records = []
        for i, item in enumerate(items):
            scene, result = found.get(i, (opened[i], opened[i]))
            record: Record = {"id": item.id}
            if item.texts is not None:
                record["texts"] = list(item.texts)
            if isinstance(result, X2VLMError):
                records.append(record | {"error": {"message": result.message, "code": result.code}})
                continue
            record |= {"kind": scene.kind, "size": list(scene.size), "notes": list(scene.notes)}
            records.append(record | RESULTS[self.task](result))
        return records


def run(
    job: Job, predictor: Predictor, items: Iterable[Item], writer: Writer, progress: Progress
) -> None:
    """Do the job for every item that has no record yet, a batch at a time."""
    waiting = (item for item in items if item.id not in writer.done)
    with ThreadPoolExecutor(READERS) as readers:
        groups = batched(waiting, predictor.items_at_once)
        following = _opened(job, predictor, groups, readers)
        while following is not None:
            group, opened = following
            scenes = [one.result() for one in opened]
            following = _opened(job, predictor, groups, readers)
            records = job.records(predictor, group, scenes)
            writer.write(records)
            progress(len(records), sum("error" in record for record in records))


def _opened(job, predictor, groups, readers):
    """The next group and the scenes that are being opened for it; None at the end."""
    group = next(groups, None)
    if group is None:
        return None
    return group, [readers.submit(job.open, predictor, item) for item in group]


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
