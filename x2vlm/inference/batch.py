"""Lists of images: every method of a Predictor takes one and gives back one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from x2vlm.errors import Cancelled, CheckpointError, ConfigError, X2VLMError


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


def batched(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of one image or video that takes a list as well.

    Of a list it returns a list in the same order; an item that failed is its X2VLMError. The images
    go through the image tower together.
    """

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
