"""Our own inputs: uploads that reach us undecoded, and a canvas to look at and draw a region on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .service.admission import uploaded
from .service.events import report_errors


@report_errors
def raw_path(payload: Any) -> str | None:
    return uploaded(payload.path) if payload else None


class RawImage(gr.Image):
    """An image input whose preprocess hands over the upload's path: decoding and messages are
    ours."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        return raw_path(payload)


class RawVideo(gr.Video):
    """A video input whose preprocess hands over the upload's path and needs no ffmpeg."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        return raw_path(payload)


CANVAS_HTML = (
    '<div class="x2-frame"><img draggable="false"><div class="x2-region" hidden></div></div>'
)

# Drawing needs no server until the pointer is lifted. Fingers scroll the page unless "draw" is on.
CANVAS_JS = """
const picture = () => element.querySelector('img');
const rubber = () => element.querySelector('.x2-region');
const paint = () => {
  const value = props.value || {};
  picture().hidden = !value.src;
  if (value.src) picture().src = value.src;
  picture().alt = value.alt || '';
};
const place = (box) => {
  const region = rubber();
  region.hidden = !box;
  if (!box) return;
  const [x1, y1, x2, y2] = box.map(side => 100 * side);
  Object.assign(region.style, {left: x1 + '%', top: y1 + '%', width: (x2 - x1) + '%', height: (y2 - y1) + '%'});
};
const at = (event) => {
  const frame = picture().getBoundingClientRect();
  const inside = (value, size) => Math.min(Math.max(value / size, 0), 1);
  return [inside(event.clientX - frame.left, frame.width), inside(event.clientY - frame.top, frame.height)];
};
const span = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
let start = null;
element.addEventListener('pointerdown', (event) => {
  if (event.target !== picture() || (event.pointerType === 'touch' && !window.x2vlmDraw)) return;
  start = at(event);
  event.preventDefault();
});
window.addEventListener('pointermove', (event) => { if (start) place(span(start, at(event))); });
window.addEventListener('pointerup', (event) => {
  if (!start) return;
  const box = span(start, at(event));
  start = null;
  if (box[2] - box[0] < 0.01 || box[3] - box[1] < 0.01) return;
  const [width, height] = props.value.size;
  trigger('select', {index: box.map((side, k) => Math.round(side * (k % 2 ? height : width))), value: 'region'});
});
window.x2vlmRegion = (...sides) => {
  const [width, height] = (props.value || {}).size || [1, 1];
  const inside = sides.map((side, k) => Math.min(Math.max(side / (k % 2 ? height : width), 0), 1));
  place(inside[2] > inside[0] && inside[3] > inside[1] ? inside : null);
};
watch('value', paint);
paint();
"""


class Canvas(gr.HTML):
    """The stage: shows `{"src", "size", "alt"}`; `select` tells a drawn region as pixels of the
    original (x1, y1, x2, y2)."""

    def __init__(self, value: dict[str, Any] | None = None, **options: Any):
        super().__init__(
            value=value,
            html_template=CANVAS_HTML,
            js_on_load=CANVAS_JS,
            apply_default_css=False,
            **options,
        )

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


CURVE_JS = """
element.addEventListener('click', (event) => {
  const point = event.target.closest('[data-k]');
  if (point) trigger('select', {index: Number(point.dataset.k), value: 'point'});
});
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' || event.key === ' ') event.target.dispatchEvent(new MouseEvent('click', {bubbles: true}));
});
"""


class Curve(gr.HTML):
    """An SVG line whose points can be chosen: `select` tells the point's number."""

    def __init__(self, value: str | None = None, **options: Any):
        super().__init__(value=value, js_on_load=CURVE_JS, **options)
