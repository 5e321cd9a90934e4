"""Lists of images: how many go through a model together, which text belongs to which image, and
whose an error is."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from x2vlm.errors import Cancelled, CheckpointError, ConfigError, ParameterError, X2VLMError
from x2vlm.inference.models import Member, gpu_memory
from x2vlm.serving import set_threads

MOST_ON_CPU, MOST_ON_GPU = 8, 64
"""Images of a batch. A CPU is no faster with more."""
TENSORS_A_LAYER = 40
"""Activations of a layer that are alive at once, in widths of a token; an estimate from above."""
SHARE = 0.25
"""Of the free memory that a batch may fill."""


def images_at_once(member: Member) -> int:
    """How many images a batch has, by the free memory of the model's device."""
    vision, fusion = member.model.config.vision, member.model.config.fusion
    tokens = vision.num_tokens
    maps = fusion.num_layers * fusion.num_heads * member.processor.max_tokens
    an_image = 4 * tokens * (TENSORS_A_LAYER * vision.hidden_size + 2 * maps)
    if member.device.type == "cuda":
        free, most = torch.cuda.mem_get_info(member.device)[0], MOST_ON_GPU
    else:
        free, most = _free_memory(), MOST_ON_CPU
    return max(1, min(most, int(SHARE * free / an_image)))


def _free_memory() -> float:
    """Bytes, infinite where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def spread(texts: Any, count: int, several: bool) -> list[Any]:
    """The texts of each of `count` images.

    Args:
        texts: one for all images, or a list of one for each. With `several` an image has a list of
            texts itself, so that a list of lists says whose they are.

    Raises:
        ParameterError: another number of texts than of images (`param/range`).
    """
    lists = (list, tuple)
    own = isinstance(texts, lists)
    if several:
        own = own and len(texts) > 0 and all(isinstance(one, lists) for one in texts)
    if not own:
        return [texts] * count
    if len(texts) != count:
        raise ParameterError(
            f"There are {count} images and {len(texts)} texts. Give one text for all images, or "
            "one for each.",
            "param/range",
        )
    return list(texts)


def attempt(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of a call, or the X2VLMError that belongs to this item alone.

    Raises:
        Cancelled, CheckpointError, ConfigError: what would stop every item.
    """
    try:
        return call(*args, **options)
    except (Cancelled, CheckpointError, ConfigError):
        raise
    except X2VLMError as error:
        return error


def together(run: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> list[Any]:
    """What `run` makes of some items, in their order.

    A batch that fails is halved until the error is that of a single item, whose place it takes; so
    a batch that is too large for the memory becomes smaller.

    Raises:
        as `attempt`.
    """
    if not items:
        return []
    found = attempt(gpu_memory()(run), items)
    if not isinstance(found, X2VLMError):
        return list(found)
    if len(items) == 1:
        return [found]
    middle = len(items) // 2
    return together(run, items[:middle]) + together(run, items[middle:])


def in_parts(
    run: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any], size: int, workers: int
) -> list[Any]:
    """What `run` makes of parts of at most `size` items, in their order, `workers` parts at a time;
    each worker has one torch thread (see `x2vlm.serving`)."""
    size = max(1, min(size, -(-len(items) // workers)))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    if workers == 1 or len(parts) < 2:
        return [result for part in parts for result in run(part)]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=set_threads, initargs=(1,)) as pool:
            found = list(pool.map(run, parts))
    finally:
        set_threads(threads)  # so that threads that begin later are as they would have been
    return [result for part in found for result in part]


def one_by_one(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of one image or video that takes a list as well, and of a list returns a list in the
    same order; an item that failed is its X2VLMError."""

    @functools.wraps(method)
    def call(self: Any, media: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(media, (list, tuple)):
            return method(self, media, *args, **options)
        return [
            scene
            if isinstance(scene, X2VLMError)
            else attempt(method, self, scene, *args, **options)
            for scene in self.encode(media, cancel=options.get("cancel"))
        ]

    return call


def padded(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Lists of several lengths as rows of one batch: each as long as the longest, its last item
    repeated, one after the other."""
    longest = max(map(len, lists))
    return [item for one in lists for item in (*one, *[one[-1]] * (longest - len(one)))]
