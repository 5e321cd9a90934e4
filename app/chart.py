"""A small line chart as SVG: axes with numbers, one or two lines, points that can be chosen by
click or keyboard."""

from __future__ import annotations

from collections.abc import Sequence

from .i18n import say

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 200, 44, 34, 12, 12
COLORS = ("#0f766e", "#b45309")
DASHES = ("", "6 4")


def curve(
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    x_key: str,
    choosable: bool = False,
    band: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> str:
    """HTML of the chart and its text twin.

    Args:
        x: positions along the horizontal axis.
        lines: text key -> values in [0, 1], one a position.
        x_key: text key of the horizontal axis.
        choosable: points carry their number for a click.
        band: lowest and highest values, which are shaded.
    """
    low, high = min(x), max(max(x), min(x) + 1e-9)

    def at(value: float, height: float) -> tuple[float, float]:
        along = (value - low) / (high - low)
        up = min(max(height, 0), 1)
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    parts = [_grid(low, high, at)]
    edge = [*zip(x, band[1]), *reversed(list(zip(x, band[0])))]
    if edge:
        outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(*point) for point in edge))
        parts.append(f'<polygon points="{outline}" fill="{COLORS[1]}" opacity=".18"/>')
    for (_key, values), color, dash in zip(lines.items(), COLORS, DASHES):
        points = [at(value, height) for value, height in zip(x, values)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5" '
            f'stroke-dasharray="{dash}"/>'
        )
        for k, (a, b) in enumerate(points):
            said = f"{x[k]:.2f}: {values[k]:.2f}"
            choose = (
                f'data-pick="frame:{k}" tabindex="0" role="button" aria-label="{said}"'
                if choosable
                else ""
            )
            parts.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{7 if choosable else 4}" fill="{color}" '
                f"{choose}/>"
            )
    keys = "".join(
        f'<span><i style="background:{c}"></i>{say(key)}</span>' for key, c in zip(lines, COLORS)
    )
    svg = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="group">{"".join(parts)}</svg>'
    return (
        f'<div class="card chart">{svg}<p class="keys">{keys}<span>→ '
        f"{say(x_key)}</span></p>{_twin(x, lines)}</div>"
    )


def _grid(low: float, high: float, at) -> str:
    """Three horizontal lines and the numbers on both axes."""
    parts = []
    for height in (0, 0.5, 1):
        (x1, y), (x2, _) = at(low, height), at(high, height)
        parts.append(f'<line x1="{x1}" x2="{x2}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{x1 - 8}" y="{y + 4}" text-anchor="end">{height:g}</text>')
    for value, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end")):
        parts.append(
            f'<text x="{at(value, 0)[0]}" y="{HEIGHT - 10}" '
            f'text-anchor="{anchor}">{value:.3g}</text>'
        )
    return "".join(parts)


def _twin(x: Sequence[float], lines: dict[str, Sequence[float]]) -> str:
    said = "; ".join(
        f"{say(key)}: " + ", ".join(f"{value:.2f} ({place:.2f})" for place, value in zip(x, values))
        for key, values in lines.items()
    )
    return f'<p class="hidden-text">{said}</p>'
