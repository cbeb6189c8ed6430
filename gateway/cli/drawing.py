"""A node's past as an SVG: the limit as a stepped line, the allocation as an area, measurements as a line. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from xml.sax.saxutils import escape

from gateway.cli.past import Past, Point

WIDTH, HEIGHT = 1_000, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 56, 46

LIMIT, ALLOCATED, MEASURED, BREACH = "#000000", "#56b4e9", "#d55e00", "#cc79a7"
"""Okabe and Ito: told apart by colour-blind readers and in grey."""

TICKS_S = (60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800)
MOST_TICKS = 10


def drawing(past: Past) -> str:
    """An SVG document, UTC on the axis, kW upwards."""
    top_w = _top_w(past)
    span_s = max((past.end - past.start).total_seconds(), 1.0)

    def x(at: datetime) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - past.start).total_seconds() / span_s

    def y(watts: int) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(watts, 0), top_w) / top_w

    low, high = y(0), y(top_w)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f"<title>{escape(past.node)} from {past.start:%Y-%m-%d %H:%M} to {past.end:%Y-%m-%d %H:%M} UTC</title>",
        '<defs><pattern id="fallback" width="8" height="8" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line x1="0" y1="0" x2="0" y2="8" stroke="#999" stroke-width="2"/>'
        "</pattern></defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_legend(past),
        *(_band(x(a), x(b), high, low, 'url(#fallback)" fill-opacity="0.35', "fallback") for a, b in past.fallbacks),
        *(
            _band(
                x(max(v.start, past.start)),
                x(min(v.end, past.end)),
                high,
                low,
                f'{BREACH}" fill-opacity="0.4',
                "breach",
            )
            for v in past.verdicts
            if v.verdict == "BREACH"
        ),
        *_time_axis(past, x, low),
        *_power_axis(top_w, y),
    ]
    for run in _runs(past.allocated, past.end):
        edge = _stepped(run, x, y)
        parts.append(
            f'<path class="allocated" d="M{x(run[0][0]):.1f},{low:.1f} L{edge} L{x(run[-1][0]):.1f},{low:.1f} Z" '
            f'fill="{ALLOCATED}" fill-opacity="0.5"/>'
        )
    for run in _runs(past.measured, past.end, holds=False):
        edge = " ".join(f"{x(at):.1f},{y(watts):.1f}" for at, watts in run)
        parts.append(f'<polyline class="measured" points="{edge}" fill="none" stroke="{MEASURED}" stroke-width="1.5"/>')
    for run in _runs(past.limit, past.end):
        edge = _stepped(run, x, y)
        parts.append(f'<polyline class="limit" points="{edge}" fill="none" stroke="{LIMIT}" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def _top_w(past: Past) -> int:
    """The top of the axis: what was reached, or a limit not far above it."""
    reached = max((w for _, w in (*past.allocated, *past.measured) if w is not None), default=0)
    limits = [w for _, w in past.limit if w is not None]
    shown = [w for w in limits if w <= 2 * reached] or limits[:1]
    return max(round(1.1 * max([reached, *shown])), 1_000)


def _runs(points: Sequence[Point], end: datetime, *, holds: bool = True) -> list[list[tuple[datetime, int]]]:
    """Stretches in which a value is known; where it ``holds``, until the next one or the end."""
    runs: list[list[tuple[datetime, int]]] = [[]]
    for at, watts in points:
        if watts is not None:
            runs[-1].append((at, watts))
        elif runs[-1]:
            if holds:
                runs[-1].append((at, runs[-1][-1][1]))
            runs.append([])
    if runs[-1] and holds:
        runs[-1].append((end, runs[-1][-1][1]))
    return [run for run in runs if run]


def _stepped(run: Sequence[tuple[datetime, int]], x: Callable[[datetime], float], y: Callable[[int], float]) -> str:
    corners = [f"{x(run[0][0]):.1f},{y(run[0][1]):.1f}"]
    for (_, before), (at, watts) in pairwise(run):
        corners += [f"{x(at):.1f},{y(before):.1f}", f"{x(at):.1f},{y(watts):.1f}"]
    return " ".join(corners)


def _band(left: float, right: float, high: float, low: float, fill: str, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{high:.1f}" width="{max(right - left, 0.5):.1f}" '
        f'height="{low - high:.1f}" fill="{fill}"/>'
    )


def _legend(past: Past) -> list[str]:
    of_meters = "its meter" if list(past.meters) == [past.node] else f"sum of {len(past.meters)} meters below"
    words = [
        (LIMIT, "limit"),
        (ALLOCATED, "allocated, with counted load"),
        (MEASURED, f"measured ({of_meters})" if past.meters else "not measured"),
        (BREACH, "breach"),
        ("#999", "fallback (hatched)"),
    ]
    out = [f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(past.node)}</text>']
    left = float(LEFT)
    for colour, text in words:
        out.append(f'<rect x="{left:.0f}" y="32" width="12" height="8" fill="{colour}"/>')
        out.append(f'<text x="{left + 16:.0f}" y="40">{escape(text)}</text>')
        left += 34 + 6.6 * len(text)
    return out


def _time_axis(past: Past, x: Callable[[datetime], float], low: float) -> list[str]:
    span_s = (past.end - past.start).total_seconds()
    every_s = next((s for s in TICKS_S if span_s / s <= MOST_TICKS), TICKS_S[-1])
    first = past.start.timestamp() // every_s * every_s + every_s
    at = past.start + timedelta(seconds=first - past.start.timestamp())
    out = []
    while at < past.end:
        text = f"{at:%m-%d %H:%M}" if span_s > 86_400 else f"{at:%H:%M}"
        out.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{low:.1f}" y2="{low + 5:.1f}" stroke="#333"/>')
        out.append(f'<text x="{x(at):.1f}" y="{low + 19:.1f}" text-anchor="middle">{text}</text>')
        at += timedelta(seconds=every_s)
    caption = f"{past.start:%Y-%m-%d %H:%M:%S} to {past.end:%Y-%m-%d %H:%M:%S} UTC"
    return [*out, f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{caption}</text>']


def _power_axis(top_w: int, y: Callable[[int], float]) -> list[str]:
    step_w = next((s for s in (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000) if top_w / s <= 8), top_w)
    out = [f'<text x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end">kW</text>']
    for watts in range(0, top_w + 1, step_w):
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(watts):.1f}" y2="{y(watts):.1f}" '
            'stroke="#ccc" stroke-width="0.5"/>'
        )
        out.append(f'<text x="{LEFT - 8}" y="{y(watts) + 4:.1f}" text-anchor="end">{watts / 1_000:g}</text>')
    return out
