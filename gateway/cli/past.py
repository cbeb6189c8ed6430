"""What a node was allowed, given and measured over time, out of a store alone. Reads; prints nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from gateway.cli.say import NotFound
from gateway.domain.envelope import Block, BlockKind, RevisionMode, prune, revise
from gateway.domain.evidence import Json
from gateway.domain.lifecycle import State
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import Dimension, Direction
from gateway.domain.timeline import parse_rfc3339
from gateway.infra.evidence_read import MAX_ROWS, EvidenceReader, StoredEntry

HELD_FOR = timedelta(minutes=3)
"""A value of a meter counts so long in a sum, then its meter is silent."""

Point = tuple[datetime, int | None]
"""From this instant on so many W; None: nothing is known, or nothing limits."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judged window of a node, as it was sealed."""

    start: datetime
    end: datetime
    limit_w: int | None
    mean_w: int | None
    worst_w: int | None
    verdict: str
    id: str


@dataclass(frozen=True, slots=True)
class Past:
    """A node within ``[start, end)``. ``allocated`` is with the load that was counted; steps hold until the next.

    ``meters`` are the nodes whose samples make ``measured``: its own meter, else all below it that have one.
    """

    node: str
    start: datetime
    end: datetime
    limit: Sequence[Point]
    allocated: Sequence[Point]
    measured: Sequence[Point]
    meters: Sequence[str]
    verdicts: Sequence[Verdict]
    fallbacks: Sequence[tuple[datetime, datetime]]


def past_of(reader: EvidenceReader, node: str | None, start: datetime | None, end: datetime | None) -> Past:
    """What the store knows; the whole of it where no time is given, the topmost node where none is.

    Raises:
        NotFound: no decision is stored, or none knows the node.
        StoreError: the store cannot be read.
    """
    decisions = list(_decisions(reader))
    if not decisions:
        raise NotFound("this store holds no decision: there is nothing to replay")
    known = {path for decision in decisions for path in decision["nodes"]}
    place = min(known, key=lambda path: (path.count("/"), path)) if node is None else node
    if place not in known:
        raise NotFound(f'no decision knows a node "{place}"; known: {", ".join(sorted(known))}')
    newest = reader.tail(1)[0].at
    begins, ends = start or decisions[0]["at"], end or newest
    meters = _meters(reader, place)
    return Past(
        node=place,
        start=begins,
        end=ends,
        limit=within(_limit(reader, decisions, place), begins, ends),
        allocated=within(_steps(decisions, lambda d, k: _allocated_w(d, place, k)), begins, ends),
        measured=_measured(reader, meters, begins, ends),
        meters=meters,
        verdicts=[v for v in _verdicts(reader, place) if v.start < ends and v.end > begins],
        fallbacks=[
            (max(a, begins), min(b, ends)) for a, b in _fallbacks(reader, place, newest) if a < ends and b > begins
        ],
    )


def within(points: Sequence[Point], start: datetime, end: datetime) -> list[Point]:
    """Steps cut to ``[start, end)``: what held before holds from ``start``."""
    before = [value for at, value in points if at <= start]
    inside = [(at, value) for at, value in points if start < at < end]
    return [(start, before[-1]), *inside] if before else inside


def _decisions(reader: EvidenceReader) -> Iterator[dict[str, Any]]:
    """The records of all decisions, oldest first; one whose record is no longer kept is left out."""
    for entry in _all(reader, "allocation.decided"):
        raw = reader.raw(str(entry.body.get("record", "")))
        if raw is not None:
            record = json.loads(raw.data)
            yield {**record, "at": entry.at, "instants": [parse_rfc3339(text) for text in record["instants"]]}


def _all(reader: EvidenceReader, type_: str) -> list[StoredEntry]:
    found: list[StoredEntry] = []
    before: int | None = None
    while page := reader.by_type(type_, before=before, limit=MAX_ROWS):
        found += page
        before = page[-1].idx
    return found[::-1]


def _steps(decisions: Sequence[Mapping[str, Any]], value: Any) -> list[Point]:
    """A value over time: what each decision says, as far ahead as until the next one."""
    points: list[Point] = []
    ends = [decision["at"] for decision in decisions[1:]]
    for decision, until in zip(decisions, [*ends, None], strict=True):
        for k, instant in enumerate(decision["instants"]):
            at = max(instant, decision["at"])
            if until is None or at < until:
                points.append((at, value(decision, k)))
    return points


def _limit(reader: EvidenceReader, decisions: Sequence[Mapping[str, Any]], node: str) -> list[Point]:
    """The tightest on the sum: what the site's own limits say, and every envelope at the node as it was known."""
    own = _steps(decisions, lambda decision, k: _own_limit_w(decision["nodes"].get(node), k))
    return _lowest([own, *envelope_limits(reader, node)])


def _own_limit_w(node: Mapping[str, Any] | None, k: int) -> int | None:
    """The tightest of a node's static limits at its ``k``-th instant."""
    rows = [] if node is None or k >= len(node["limits"]) else node["limits"][k]
    return min((row["w"] for row in rows if "w" in row and not row["label"].startswith("envelope:")), default=None)


def _lowest(series: Sequence[Sequence[Point]]) -> list[Point]:
    """The lowest of stepped values, where any is known."""
    changes = [(at, k, value) for k, points in enumerate(series) for at, value in points]
    now: dict[int, int] = {}
    out: list[Point] = []
    for at, k, value in sorted(changes, key=lambda change: change[0]):
        now.pop(k, None)
        if value is not None:
            now[k] = value
        if out and out[-1][0] == at:
            out.pop()
        out.append((at, min(now.values(), default=None)))
    return out


def envelope_limits(reader: EvidenceReader, node: str) -> list[list[Point]]:
    """What each envelope at a node held on its sum of import over time, by its revisions and its states."""
    revised = {e.id: e for e in _all(reader, "envelope.revised") if e.subject.get("node") == node}
    moves = [e for e in _all(reader, "envelope.state") if e.subject.get("node") == node]
    keys: dict[str, str] = {}
    for move in moves:
        said = next((revised[c] for c in move.cause if c in revised), None)
        if said is not None and said.body["direction"] == Direction.IMPORT.value:
            keys.setdefault(move.subject["envelope"], said.subject["key"])
    out = []
    for envelope, key in keys.items():
        mine = [m for m in moves if m.subject["envelope"] == envelope]
        words = [e for e in revised.values() if e.subject["key"] == key and e.body["kind"] == BlockKind.PRIMARY.value]
        out.append(_held(sorted([*mine, *words], key=lambda e: e.idx)))
    return out


def _held(entries: Sequence[StoredEntry]) -> list[Point]:
    """The value of one envelope: its blocks while it is active, what its last move named in fallback."""
    blocks: tuple[Block, ...] = ()
    active, fallen = False, None
    points: list[Point] = []
    for entry, after in zip(entries, [*entries[1:], None], strict=True):
        if entry.type == "envelope.revised":
            blocks = prune(revise(blocks, _blocks(entry), RevisionMode(str(entry.body["mode"]))), entry.at)
        else:
            active = entry.body["to"] == State.ACTIVE.value
            fallen = _sum_w(entry) if _holds(entry) else None
        until = after.at if after is not None else None
        edges = {edge for b in blocks for edge in (b.start, b.end)} if active else set()
        inside = sorted(e for e in edges if entry.at < e and (until is None or e < until))
        points += [(at, _covering_w(blocks, at) if active else fallen) for at in (entry.at, *inside)]
    return points


def _holds(move: StoredEntry) -> bool:
    """Whether the value that a move names goes on holding: in fallback, and after its end as stale policy."""
    to, before = move.body["to"], move.body["from"]
    in_fallback = to in (State.FALLBACK_ELIGIBLE.value, State.ACTIVE_FALLBACK.value)
    return in_fallback or (to == State.EXPIRED.value and before == State.ACTIVE_FALLBACK.value)


def _blocks(entry: StoredEntry) -> tuple[Block, ...]:
    """The blocks on the sum that a message said."""
    told: Any = entry.body["blocks"]
    return tuple(
        Block(parse_rfc3339(b["start"]), parse_rfc3339(b["end"]), b["value"])
        for b in told
        if b["dimension"] == Dimension.SUM_W.value
    )


def _covering_w(blocks: Sequence[Block], at: datetime) -> int | None:
    return min((b.value for b in blocks if b.start <= at < b.end), default=None)


def _sum_w(move: StoredEntry) -> int | None:
    values: Any = move.body["values"]
    return min((v["value"] for v in values if v["dimension"] == Dimension.SUM_W.value), default=None)


def _allocated_w(decision: Mapping[str, Any], node: str, k: int) -> int | None:
    if node not in decision["nodes"]:
        return None
    below = [e["wanted_w"][k] for evse, e in decision["evses"].items() if _is_below(evse, node)]
    return int(sum(below) + decision["nodes"][node]["load_w"])


def _is_below(path: str, node: str) -> bool:
    return path == node or path.startswith(f"{node}/")


def _meters(reader: EvidenceReader, node: str) -> list[str]:
    """Nodes whose power was measured: the node's own, else the topmost ones below it."""
    measured = sorted({str(s.node) for s in reader.series() if s.quantity == Quantity.P.value})
    below = [path for path in measured if _is_below(path, node)]
    return [path for path in below if not any(path != other and _is_below(path, other) for other in below)]


def _measured(reader: EvidenceReader, meters: Sequence[str], start: datetime, end: datetime) -> list[Point]:
    """The sum of the meters, each with its last value while that is young."""
    samples = sorted((at, meter, value) for meter in meters for at, value in _samples(reader, meter, start, end))
    last: dict[str, tuple[datetime, int]] = {}
    points: list[Point] = []
    for at, meter, value in samples:
        last[meter] = (at, value)
        points.append((at, sum(w for since, w in last.values() if at - since <= HELD_FOR)))
    return [point for point in _with_gaps(points) if point[0] < end]


def _with_gaps(points: Sequence[Point]) -> Iterator[Point]:
    for (at, value), (after, _) in pairwise([*points, *points[-1:]]):
        yield at, value
        if after - at > HELD_FOR:
            yield at + HELD_FOR, None


def _samples(reader: EvidenceReader, node: str, start: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
    while page := reader.samples(node, Quantity.P, start, end):
        yield from ((sample.at, sample.value) for sample in page)
        if len(page) < MAX_ROWS:
            return
        start = page[-1].at + timedelta(milliseconds=1)


def _verdicts(reader: EvidenceReader, node: str) -> list[Verdict]:
    """The node's windows in order; one that was judged anew counts as it was judged last."""
    found: dict[tuple[str, str], Verdict] = {}
    for entry in _all(reader, "compliance.interval"):
        body = entry.body
        if entry.subject.get("node") == node:
            found[entry.subject.get("envelope", ""), str(body["start"])] = Verdict(
                parse_rfc3339(str(body["start"])),
                parse_rfc3339(str(body["end"])),
                _watts(body.get("limit_w")),
                _watts(body.get("mean_w")),
                _watts(body.get("worst_w")),
                str(body["verdict"]),
                entry.id,
            )
    return sorted(found.values(), key=lambda v: (v.start, v.id))


def _watts(value: Json) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _fallbacks(reader: EvidenceReader, node: str, newest: datetime) -> list[tuple[datetime, datetime]]:
    """When an envelope at the node was in fallback, or its stale value held on."""
    since: dict[str, datetime] = {}
    spans: list[tuple[datetime, datetime]] = []
    for entry in _all(reader, "envelope.state"):
        envelope = entry.subject.get("envelope", "")
        if entry.subject.get("node") != node:
            continue
        if entry.body.get("to") == "ACTIVE_FALLBACK":
            since.setdefault(envelope, entry.at)
        elif envelope in since:
            spans.append((since.pop(envelope), entry.at))
    return sorted([*spans, *((at, newest) for at in since.values())])
