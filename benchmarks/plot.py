"""Time and memory over the number of records, as an SVG of two panels with logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

__all__ = ["Line", "svg"]

Line = Sequence[tuple[float, float]]
"""Points (records, value), both above zero."""

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 330, 240, 60, 40, 90
_COLOURS = ("#1b6ca8", "#7fb2d9", "#b3541e", "#e0a77f")


def svg(panels: Mapping[str, Mapping[str, Line]]) -> str:
    """Title of a panel -> name of a line -> its points."""
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 60 + 18 * max(map(len, panels.values()))
    drawn = [
        f'<g transform="translate({_LEFT + number * (_WIDTH + _GAP)},{_TOP})">{_panel(title, lines)}</g>'
        for number, (title, lines) in enumerate(panels.items())
    ]
    style = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>", ""])


def _panel(title: str, lines: Mapping[str, Line]) -> str:
    points = [point for line in lines.values() for point in line]
    x, y = _axis([p[0] for p in points]), _axis([p[1] for p in points])
    parts = [f'<text x="0" y="-14" font-weight="bold">{escape(title)}</text>']
    parts += [_tick(_WIDTH * _share(v, x), _HEIGHT, f"{v:,.0f}", across=False) for v in _decades(x)]
    parts += [_tick(0, _HEIGHT * (1 - _share(v, y)), f"{v:,g}", across=True) for v in _decades(y)]
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        at = [(_WIDTH * _share(px, x), _HEIGHT * (1 - _share(py, y))) for px, py in line]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in at]
        parts.append(f'<text x="0" y="{_HEIGHT + 44 + 18 * number}" fill="{colour}">{escape(name)}</text>')
    return "\n".join(parts)


def _axis(values: Sequence[float]) -> tuple[int, int]:
    """The decades that hold all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _decades(axis: tuple[int, int]) -> list[float]:
    return [10.0**power for power in range(axis[0], axis[1] + 1)]


def _share(value: float, axis: tuple[int, int]) -> float:
    return (math.log10(value) - axis[0]) / (axis[1] - axis[0])


def _tick(x: float, y: float, label: str, *, across: bool) -> str:
    grid = 'stroke="#dddddd"'
    if across:
        line = f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" {grid}/>'
        return f'{line}<text x="-8" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" {grid}/>'
    return f'{line}<text x="{x:.1f}" y="{_HEIGHT + 18}" text-anchor="middle">{label}</text>'
