"""``gridgate replay``: what a node was allowed, given and measured, drawn out of a stored site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import Json
from gateway.cli.say import Exit, UsageError, printable, put, put_json, table, verb, watts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.cli.past import Past, Point


@verb
def replay(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store, or a copy of one; its telemetry beside it.")],
    svg: Annotated[Path | None, typer.Option(help="Draw it into this new file.")] = None,
    node: Annotated[str | None, typer.Option(help="Whose past; the topmost node if not given.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Not before this instant (RFC 3339).")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before this instant (RFC 3339).")] = None,
    json_output: Json = False,
) -> Exit:
    """Show limit, allocation and measurement of a node over time, and how its windows were judged.

    Works beside a running gateway and on a copy of the store; needs no configuration and writes
    nothing but the drawing.
    """
    from gateway.cli.drawing import drawing
    from gateway.cli.past import past_of
    from gateway.cli.search import Wanted
    from gateway.infra.evidence_read import EvidenceReader

    if svg is not None and svg.exists():
        raise UsageError(f"{svg} is there already", hint="name a new file; nothing is overwritten")
    wanted = Wanted.of(node=node, peer=None, type=None, verdict=None, start=from_, end=to)
    with EvidenceReader(store) as reader:
        past = past_of(reader, node, wanted.start, wanted.end)
    if svg is not None:
        svg.write_text(drawing(past), encoding="utf-8")
    if json_output:
        put_json(document(past))
        return Exit.OK
    for line in lines(past):
        put(printable(line))
    if svg is not None:
        put(printable(f"drawn in {svg}"))
    return Exit.OK


def lines(past: Past) -> list[str]:
    """The past in words."""
    out = [
        f"{past.node}  {past.start:%Y-%m-%d %H:%M:%SZ} to {past.end:%Y-%m-%d %H:%M:%SZ}",
        f"limit      {_range(past.limit)}",
        f"allocated  {_range(past.allocated)}",
        f"measured   {_range(past.measured)}",
        "",
    ]
    rows = [
        (f"{v.start:%Y-%m-%d %H:%M}", f"{v.end:%H:%M}", watts(v.limit_w), watts(v.mean_w), watts(v.worst_w), v.verdict)
        for v in past.verdicts
    ]
    head = ("from", "to", "limit", "mean", "worst", "verdict")
    return [*out, *(table([head, *rows]) if rows else ["no window of this node was judged"])]


def document(past: Past) -> dict[str, Any]:
    """The past as JSON."""
    from gateway.domain.timeline import rfc3339

    def series(points: Sequence[Point]) -> list[list[Any]]:
        return [[rfc3339(at), value] for at, value in points]

    return {
        "node": past.node,
        "from": rfc3339(past.start),
        "to": rfc3339(past.end),
        "limit_w": series(past.limit),
        "allocated_w": series(past.allocated),
        "measured_w": series(past.measured),
        "meters": list(past.meters),
        "fallbacks": [[rfc3339(a), rfc3339(b)] for a, b in past.fallbacks],
        "verdicts": [
            {
                "id": v.id,
                "from": rfc3339(v.start),
                "to": rfc3339(v.end),
                "limit_w": v.limit_w,
                "mean_w": v.mean_w,
                "worst_w": v.worst_w,
                "verdict": v.verdict,
            }
            for v in past.verdicts
        ],
    }


def _range(points: Sequence[Point]) -> str:
    known = [value for _, value in points if value is not None]
    if not known:
        return "-"
    return f"{watts(min(known))} to {watts(max(known))}, {len(points)} values"
