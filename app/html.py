"""Results as HTML: tables, badges, words to choose, and the picture in words. Everything from
outside is escaped.

`data-pick` marks what can be chosen: `layer:word` of a result (`0:` is a whole layer), `frame:3`,
or the name of something else that its tab knows.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape, unescape
from typing import Any

import numpy as np
from PIL import Image

from x2vlm.results import Grounding
from x2vlm.visualize import PALETTE

from . import measures
from .i18n import LANGUAGES, TEXT, language, say
from .state import Preview, ViewState

MOST_WORDS = 40


def plain(html: str) -> str:
    """The text of a piece of HTML in the language of the present event."""
    others = "|".join(other for other in LANGUAGES if other != LANGUAGES[language()])
    without = re.sub(rf'<span lang="(?:{others})">.*?</span>', "", html, flags=re.S)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without))).strip()


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def note(key: str, kind: str = "note", **values: Any) -> str:
    return f'<p class="{kind}">{say(key, **values)}</p>'


def remark(text: str) -> str:
    """A sentence of x2vlm about a file, which may end with its code in brackets."""
    code = text[text.rfind("[") + 1 :].rstrip("]") if "[" in text else ""
    shown = text[: text.rfind("[")].strip() if code in TEXT else text
    return note(code if code in TEXT else "remark", "warn", text=shown)


def model_note(name: str, text: str) -> str:
    """What a model is for: of a bundled one in the visitor's language, else what its settings
    say."""
    if f"note_{name}" in TEXT:
        return note(f"note_{name}")
    return note("remark", text=text) if text else ""


def help_mark(key: str) -> str:
    """A question mark that opens one sentence."""
    return f'<details class="help"><summary aria-label="?">?</summary>{say(key)}</details>'


def badge(index: int) -> str:
    """The phrase's number in its box's colour."""
    return f'<span class="badge" style="--c:{PALETTE[index % len(PALETTE)]}">{index + 1}</span>'


def bar(value: float | None) -> str:
    """A bar from 0 to 1 with its number."""
    if value is None:
        return "–"
    width = 100 * min(max(value, 0.0), 1.0)
    return (
        f'<span class="bar"><i style="width:{width:.1f}%"></i></span>'
        f'<span class="num">{value:.2f}</span>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """`head` holds text keys (none: no head), `rows` HTML."""
    top = "".join(f"<th scope='col'>{say(key) if key else ''}</th>" for key in head)
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='card scroll'><table class='{name}'>{top}<tbody>{body}</tbody></table></div>"
    )


def pick(what: str, inner: str, pressed: bool = False, kind: str = "word", style: str = "") -> str:
    """A button that chooses something of a result; `inner` is HTML."""
    state = "true" if pressed else "false"
    return (
        f'<button type="button" class="pick {kind}" data-pick="{escape(what)}" '
        f'aria-pressed="{state}" style="{style}">{inner}</button>'
    )


def words(
    parts: Sequence[tuple[str, int | None, float | None]], layer: int, chosen: int | None
) -> str:
    """The parts of a text as buttons, the chosen one marked; plain text where a part has no map.

    Args:
        parts: text, number of the word that is chosen by it, weight from 0 to 1 that tints it.
    """
    each = [
        pick(f"{layer}:{word}", escape(text), word == chosen, style=f"--w:{weight or 0:.2f}")
        if word is not None
        else f'<span class="between">{escape(text)}</span>'
        for text, word, weight in parts[:MOST_WORDS]
    ]
    return "".join(each)


def image_source(image: Image.Image, kind: str = "PNG") -> str:
    """A data address: PNG without loss, or a small JPEG for thumbnails."""
    stream = io.BytesIO()
    settings = {"compress_level": 1} if kind == "PNG" else {"quality": 82}
    image.convert("RGB").save(stream, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def thumbnail(image: Image.Image, side: int = 160, alt: str = "") -> str:
    """A small copy of an image as an `<img>`."""
    copy = image.copy()
    copy.thumbnail((side, side))
    return f'<img src="{image_source(copy, "JPEG")}" alt="{escape(alt)}" draggable="false">'


def tiles(named: Sequence[tuple[str, Image.Image, str]], pressed: str = "", side: int = 160) -> str:
    """Images to choose from: what is chosen, the image, its caption."""
    each = [
        pick(what, f"{thumbnail(image, side)}<span>{escape(text)}</span>", what == pressed, "tile")
        for what, image, text in named
    ]
    return f'<div class="tiles">{"".join(each)}</div>'


def strip(preview: Preview, frame: int) -> str:
    """The seen frames of a video, with their numbers and times."""
    each = [
        (f"frame:{k}", image, f"{index} · {time:.2f} s")
        for k, (image, index, time) in enumerate(
            zip(preview.frames, preview.indices, preview.times)
        )
    ]
    return tiles(each, f"frame:{frame}")


def verdict(found: Grounding) -> str:
    if found.verdict is None:
        return f'<span class="verdict unsure">{number(found.match)}</span>'
    return (
        f'<span class="verdict {found.verdict}">{say(found.verdict)} '
        f"<b>{number(found.match)}</b></span>"
    )


def where(box: Sequence[float], size: tuple[int, int]) -> dict[str, str]:
    """The sides of a box as percentages of the image."""
    x1, y1, x2, y2 = (percent(side / size[k % 2]) for k, side in enumerate(box))
    return {"left": x1, "top": y1, "right": x2, "bottom": y2}


def place(heat: np.ndarray) -> dict[str, str]:
    """Where a map is hottest, as texts."""
    x, y = measures.peak(heat)
    return {"x": percent(x), "y": percent(y)}


def cut(text: str, at: int | None) -> str:
    """A warning where a text was too long for the model."""
    return note("cut", "warn", at=at, text=text[:at]) if at else ""


def in_words(state: ViewState) -> str:
    """The stage as sentences: every box on it, and where the map in view is hottest."""
    parts = []
    for _, found in state.found:
        key = f"twin_{found.verdict or 'unsure'}"
        sides = where(found.box_xyxy, state.preview.size)
        parts.append(say(key, phrase=found.phrase, match=number(found.match), **sides))
    if state.flat:
        parts.append(say("flat"))
    elif state.heat is not None:
        parts.append(say("twin_map", what=map_name(state), **place(state.heat)))
    width, height = state.preview.size
    return " ".join(parts) or say("twin_plain", name=state.preview.name, width=width, height=height)


def map_name(state: ViewState) -> str:
    """The text or part of it whose map is in view."""
    explanation, word = state.result.explanation, state.result.word
    if word is None:
        return explanation.text
    named = {k: text for text, k in measures.parts(explanation)}
    return named.get(word, explanation.words[word].text)


def head(model: str, seconds: float | None = None) -> str:
    """The name of the model and how long the last call took."""
    took = f" · {say('took', seconds=f'{seconds:.2f}')}" if seconds is not None else ""
    return f'<span class="model" role="status">{model}{took}</span>'
