"""Our own components: uploads that reach us undecoded, an image to draw a region on, and HTML whose
parts can be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from .service.admission import uploaded
from .service.events import report_errors

FOLDER = Path(__file__).resolve().parent


@report_errors
def raw_path(payload: Any) -> str | None:
    """The path of an upload, which must lie in the upload folder."""
    return uploaded(payload.path) if payload else None


class RawImage(gr.Image):
    """An image input that hands over the upload's path: decoding and messages are ours."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        return raw_path(payload)


class RawVideo(gr.Video):
    """A video input that hands over the upload's path and needs no ffmpeg."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        return raw_path(payload)


class Canvas(gr.HTML):
    """The image of the stage, `{"src", "size", "alt", "region"}`; `select` tells a drawn region as
    pixels of the original (x1, y1, x2, y2)."""

    def __init__(self, value: dict[str, Any] | None = None, **options: Any):
        super().__init__(
            value=value,
            html_template='<div class="x2-frame"><img draggable="false" alt="">'
            '<div class="x2-region" hidden></div></div>',
            js_on_load=(FOLDER / "canvas.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


class Pick(gr.HTML):
    """HTML whose parts with `data-pick` can be chosen; `select` tells the chosen one's text as its
    value."""

    def __init__(self, value: str | None = None, **options: Any):
        super().__init__(
            value=value,
            js_on_load=(FOLDER / "pick.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            **options,
        )
