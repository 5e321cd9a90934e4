"""Results as HTML: tables, badges, legend and the text twin of every picture. All that comes from
outside is escaped."""

from __future__ import annotations

import re
from html import escape, unescape
from typing import TYPE_CHECKING, Any

import numpy as np

from x2vlm.results import Caption, Explanation, Grounding, Match
from x2vlm.visualize import PALETTE

from .i18n import LANGUAGES, TEXT, language, say

if TYPE_CHECKING:
    from .view import Look, Shown


def plain(html: str) -> str:
    """The text of a card in the language of the present event."""
    others = "|".join(other for other in LANGUAGES if other != LANGUAGES[language()])
    without = re.sub(rf'<span lang="(?:{others})">.*?</span>', "", html, flags=re.S)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without))).strip()


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def badge(index: int) -> str:
    """The phrase's number in its box's colour."""
    return f'<span class="badge" style="--c:{PALETTE[index % len(PALETTE)]}">{index + 1}</span>'


def verdict(grounding: Grounding) -> str:
    if grounding.verdict is None:
        return f'<span class="verdict unsure">{number(grounding.match)}</span>'
    return (
        f'<span class="verdict {grounding.verdict}">{say(grounding.verdict)} '
        f"<b>{number(grounding.match)}</b></span>"
    )


def table(head: list[str], rows: list[list[str]], name: str) -> str:
    """`head` holds text keys (none: no head), `rows` HTML."""
    top = "".join(f"<th scope='col'>{say(key) if key else ''}</th>" for key in head)
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='card scroll'><table class='{name}'>{top}<tbody>{body}</tbody></table></div>"
    )


def note(key: str, kind: str = "note", **values: Any) -> str:
    return f'<p class="{kind}">{say(key, **values)}</p>'


def remark(text: str) -> str:
    """A sentence of x2vlm about a file, which ends with its code in brackets."""
    code = text[text.rfind("[") + 1 :].rstrip("]")
    return note(code if code in TEXT else "remark", "warn", text=text)


def bar(value: float | None) -> str:
    """A bar from 0 to 1 with its number."""
    if value is None:
        return "–"
    width = 100 * min(max(value, 0.0), 1.0)
    return (
        f'<span class="bar"><i style="width:{width:.1f}%"></i></span><span '
        f'class="num">{value:.2f}</span>'
    )


def head(status: str) -> str:
    """Title, tagline and which model answers."""
    return (
        f'<div class="head"><h1>X²-VLM</h1><span class="sub">{say("tagline")}</span><span '
        f'class="model">{status}</span></div>'
    )


def agreement(found: Grounding) -> str:
    """Share of the heat inside the box, and whether its peak is."""
    if found.agreement is None:
        return "–"
    hit = found.agreement.pointing_hit
    peak = "" if hit is None else f"<br><small>{say('peak_in' if hit else 'peak_out')}</small>"
    return percent(found.agreement.energy_inside) + peak


def findings(
    groundings: tuple[Grounding, ...], size: tuple[int, int], iou: list[float] | None = None
) -> str:
    """The phrases with verdict, box and agreement."""
    rows = []
    for k, found in enumerate(groundings):
        x1, y1, x2, y2 = (round(side) for side in found.box_xyxy)
        area = (x2 - x1) * (y2 - y1) / (size[0] * size[1])
        box = f"<small class='num'>x {x1}–{x2}, y {y1}–{y2} px · {percent(area)}</small>"
        row = [
            badge(k),
            f"<b>{escape(found.phrase)}</b><br>{box}",
            verdict(found),
            agreement(found),
        ]
        rows.append(row + ([number(iou[k])] if iou else []))
    head = ["", "phrase", "verdict", "heat_inside", *(["iou"] if iou else [])]
    odd = [k + 1 for k, found in enumerate(groundings) if degenerate(found, size)]
    warning = note("degenerate", "warn", which=", ".join(map(str, odd))) if odd else ""
    cut = "".join(
        note("cut", "warn", at=g.truncated_at, text=g.phrase[: g.truncated_at])
        for g in groundings
        if g.truncated_at
    )
    return table(head, rows, "findings") + warning + cut + note("one_box")


def degenerate(found: Grounding, size: tuple[int, int]) -> bool:
    """A box of under a thousandth of the picture or nearly all of it says little."""
    x1, y1, x2, y2 = found.box_xyxy
    share = (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    return share < 0.001 or share > 0.995


def captions(found: tuple[Caption, ...]) -> str:
    rows = [
        [
            str(k + 1),
            escape(c.text),
            number(c.log_probability / max(len(c.tokens), 1)),
            bar(c.match),
            str(len(c.words)),
        ]
        for k, c in enumerate(found)
    ]
    best = found[0]
    extra = "" if best.finished else note("caption_cut", "warn")
    extra += note("repetitive", "warn") if best.repetitive else ""
    return table(["", "caption", "log_prob", "match", "length"], rows, "captions") + extra


def matches(found: tuple[Match, ...]) -> str:
    """Texts best first; both scores, and a mark where the two disagree about the best."""
    rows = [
        [str(k + 1), escape(m.text), bar(m.probability), number(m.similarity)]
        for k, m in enumerate(found)
    ]
    similar = [m.similarity for m in found if m.similarity is not None]
    disagree = (
        len(found) > 1 and found[0].similarity is not None and found[0].similarity < max(similar)
    )
    cut = "".join(
        note("cut", "warn", at=m.truncated_at, text=m.text[: m.truncated_at])
        for m in found
        if m.truncated_at
    )
    return (
        table(["", "text", "match", "similarity"], rows, "matches")
        + (note("disagree") if disagree else "")
        + cut
    )


def answer(
    question: str, best: str, close: bool, weak: bool, truncated_at: int | None = None
) -> str:
    notes = (note("close") if close else "") + (note("weak_spot") if weak else "")
    notes += (
        note("cut", "warn", at=truncated_at, text=question[:truncated_at]) if truncated_at else ""
    )
    return (
        f'<div class="card answer"><p class="q">{escape(question)}</p><p '
        f'class="a">{escape(best)}</p></div>{notes}'
    )


def where(box: tuple[float, ...], size: tuple[int, int]) -> dict[str, str]:
    x1, y1, x2, y2 = (percent(side / size[k % 2]) for k, side in enumerate(box))
    return {"left": x1, "top": y1, "right": x2, "bottom": y2}


def peak(heat: np.ndarray) -> dict[str, str]:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return {"x": percent((column + 0.5) / heat.shape[1]), "y": percent((row + 0.5) / heat.shape[0])}


def twin(shown: Shown) -> str:
    """The picture in words: every box of it, and where the map in view is hottest."""
    parts = []
    for _, found in shown.found:
        key = f"twin_{found.verdict or 'unsure'}"
        parts.append(
            say(
                key,
                phrase=found.phrase,
                match=number(found.match),
                **where(found.box_xyxy, shown.seen.size),
            )
        )
    if shown.flat:
        parts.append(say("flat"))
    elif shown.heat is not None:
        parts.append(
            say("twin_map", what=in_view(shown.explanation, shown.word), **peak(shown.heat))
        )
    return " ".join(parts) or say(
        "twin_plain", name=shown.seen.name, width=shown.seen.size[0], height=shown.seen.size[1]
    )


def in_view(explanation: Explanation, word: int | None) -> str:
    return explanation.text if word is None else explanation.words[word].text


def caption(shown: Shown, look: Look) -> str:
    """Legend of the map in view and the text twin below the stage."""
    legend = ""
    if "heat" in look.show and shown.heat is not None and not shown.flat:
        low, high = shown.heat_range
        ramp = (
            f'<span>{low:.3g}</span><span class="ramp '
            f'{look.colormap}"></span><span>{high:.3g}</span>'
        )
        legend = f'<div class="legend">{ramp}{"" if shown.word is None else note("scale")}</div>'
    notes = "".join(remark(text) for text in shown.seen.notes)
    return f'{legend}<p class="twin" role="status">{twin(shown)}</p>{notes}'
