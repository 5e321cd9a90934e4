"""What the page remembers of a visitor: plain data, without a component and without a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from x2vlm.errors import MediaError
from x2vlm.results import Explanation, Grounding
from x2vlm.visualize import heat_range, is_flat

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MediaRef:
    """An uploaded file and, for a video, which of its frames the model sees; with `frame`, that one
    frame as an image."""

    path: str
    num_frames: int | None = None
    indices: tuple[int, ...] | None = None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Preview:
    """What the page shows of an encoded image or video. `size` is (width, height) of the upright
    original in pixels; all boxes are in these pixels."""

    kind: str
    name: str
    size: tuple[int, int]
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """What the tabs offer for one image or video.

    Attributes:
        question, phrases, text, texts: what stands in the fields of Ask, Find, Inspect and Match.
        questions: more questions to choose from.
    """

    question: str = ""
    phrases: str = ""
    text: str = ""
    texts: str = ""
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Layer:
    """One thing that can be shown alone: a phrase, an answer or a sentence, with its map and box
    where it has them."""

    name: str
    explanation: Explanation | None = None
    grounding: Grounding | None = None

    @property
    def frame(self) -> int | None:
        """The frame of a video that map and box belong to; None where they belong to all."""
        return self.grounding.frame if self.grounding else None


@dataclass(frozen=True, eq=False)
class Result:
    """What one press of a tab's button gave, and which part of it is in view.

    Attributes:
        task: method of the Predictor that gave it.
        found: the values that the Predictor returned.
        layers: what of it can be shown alone.
        asked: name of a field -> its value when the button was pressed; `model`, `region` and
            `frame` besides.
        settings: what the methods sentence and the downloads say: model, hash, options.
        seconds: how long the call took; None for a stored result.
        layer, word: the layer in view, and its word; None for the whole text.
    """

    task: str
    found: tuple[Any, ...]
    layers: tuple[Layer, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    layer: int = 0
    word: int | None = None

    @property
    def explanation(self) -> Explanation | None:
        """That of the layer in view; None where it has no map."""
        explanation = self.layers[self.layer].explanation if self.layers else None
        return explanation if explanation is not None and len(explanation.maps) else None

    def focus(self, layer: int, word: int | None) -> Result:
        """The same result with one layer, or a word of it, in view."""
        return dataclasses.replace(self, layer=layer, word=word)

    def made_with(self, values: dict[str, Any]) -> bool:
        """Whether these inputs are the ones it was made with."""
        return all(values.get(name) == value for name, value in self.asked.items())


@dataclass(frozen=True)
class ViewOptions:
    """The view controls: `show` holds any of `box`, `heat`, `absent` (boxes of what is probably not
    there); `one_scale` draws all words of a text on one scale instead of each on its own."""

    show: tuple[str, ...] = ("box", "heat")
    opacity: float = 0.55
    threshold: float = 0.2
    colormap: str = "viridis"
    smooth: bool = True
    one_scale: bool = False


@dataclass(frozen=True, eq=False)
class ViewState:
    """The stage of one visitor.

    Attributes:
        origin: query string of a link that reopens the media.
        tab: the tab in view; the stage shows its result.
        results: name of a tab -> its latest result.
        region: the drawn box in pixels, which every tab obeys.
        frame: number of the frame in view, from 0.
        texts: what the tabs offer for this image.
        asked: (question, answer, probability), newest first.
    """

    media: MediaRef
    preview: Preview
    origin: str = ""
    texts: Texts = Texts()
    asked: tuple[tuple[str, str, float], ...] = ()
    tab: str = ""
    results: dict[str, Result] = field(default_factory=dict)
    region: Box | None = None
    frame: int = 0

    @property
    def result(self) -> Result | None:
        """The result of the tab in view."""
        return self.results.get(self.tab)

    @property
    def is_video(self) -> bool:
        """Whether the stage holds a video."""
        return self.preview.kind == "video"

    @property
    def video_frame(self) -> int | None:
        """The frame in view of a video; None for an image."""
        return self.frame if self.is_video else None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What of the result in view can be shown alone."""
        return self.result.layers if self.result else ()

    @property
    def found(self) -> list[tuple[int, Grounding]]:
        """The boxes of the frame in view, each after its phrase's number from 0."""
        here = (None, self.frame)
        return [
            (k, layer.grounding)
            for k, layer in enumerate(self.layers)
            if layer.grounding and layer.frame in here
        ]

    @property
    def heat(self) -> np.ndarray | None:
        """float32 (grid, grid): the map in view, of one word or of the whole text; None where there
        is none or it belongs to another frame."""
        result = self.result
        if result is None or result.explanation is None:
            return None
        if result.layers[result.layer].frame not in (None, self.frame):
            return None
        maps = result.explanation
        return maps.overall if result.word is None else maps.maps[result.word]

    def heat_range(self, one_scale: bool = False) -> tuple[float, float]:
        """Lowest and highest value of the map in view, or with `one_scale` of all words of its
        text."""
        if one_scale and self.result.word is not None:
            return heat_range(self.result.explanation.maps)
        return heat_range(self.heat)

    @property
    def flat(self) -> bool:
        """Whether the map in view has no contrast; that is said, not stretched to full colour."""
        return self.heat is not None and is_flat(self.heat)

    def with_result(self, tab: str, result: Result) -> ViewState:
        """The same stage with a tab's new result, at the frame that the result belongs to."""
        frame = result.layers[result.layer].frame if result.layers else None
        return dataclasses.replace(
            self,
            results=self.results | {tab: result},
            frame=self.frame if frame is None else frame,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but pixels and maps, for the page's JSON and the download."""
        preview, result = self.preview, self.result
        media = {"name": preview.name, "kind": preview.kind, "size": list(preview.size)}
        if self.is_video:
            times = [round(time, 3) for time in preview.times]
            media |= {"frames": list(preview.indices), "times": times}
        if result is None:
            return {"task": "", "media": media, "settings": {}, "results": []}
        found = [_without_maps(one.to_dict()) for one in result.found]
        settings = result.settings | {"asked": result.asked}
        return {"task": result.task, "media": media, "settings": settings, "results": found}


def loaded(state: ViewState | None) -> ViewState:
    """What is on the stage.

    Raises:
        MediaError: it is empty (`image/empty`).
    """
    if state is None:
        raise MediaError(
            "Add a picture or a video first: drop it here, or take an example.", "image/empty"
        )
    return state


def _without_maps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_maps(item) for key, item in value.items() if key != "maps"}
    return [_without_maps(item) for item in value] if isinstance(value, list) else value
