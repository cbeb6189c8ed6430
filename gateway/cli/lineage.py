"""From a name to the evidence around it: causes back to the message, effects on to the verdict.

Reads a store; decides nothing and prints nothing. Every walk is bounded, and says when it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.domain.errors import StoreError
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Quantity
from gateway.domain.timeline import parse_rfc3339, rfc3339
from gateway.infra.evidence_read import MAX_ROWS, EvidenceReader, StoredEntry, StoredSample

MAX_ENTRIES = 200
"""Entries of one answer: what a person can look at."""

MAX_STARTS = 25
"""Entries that a walk begins at, the newest ones."""

MAX_EFFECTS = 12
"""Effects followed per entry: a limit in force is cited by every decision and every window."""

MAX_DEPTH = 8

VERDICT = "compliance.interval"
DECISION = "allocation.decided"

_HISTORY = frozenset({DECISION, "setpoint.acknowledged", "setpoint.failed"})
"""A decision cites the one before and what became of it: followed, that leads to the first day."""

_NEAR = timedelta(minutes=30)
"""Windows are judged within minutes of their end; looked for so much later."""

_SKEW = timedelta(days=1)
"""Samples may be so much newer than the newest entry."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One stored value. ``covered``: whether a judged window holds its instant."""

    node: NodeId
    quantity: Quantity
    sample: StoredSample
    covered: bool

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "node": self.node,
            "quantity": self.quantity.value,
            "value": self.sample.value,
            "measured_at": rfc3339(self.sample.at),
            "received_at": rfc3339(self.sample.received_at),
            "quality": self.sample.quality.value,
            "source": self.sample.source,
            "covered": self.covered,
        }


@dataclass(frozen=True)
class Lineage:
    """What was found. ``entries`` in order of time; ``starts`` are those that were asked for."""

    id: str
    kind: str
    entries: Sequence[StoredEntry] = ()
    starts: frozenset[str] = frozenset()
    measurement: Measured | None = None
    truncated: bool = False

    @property
    def requests(self) -> list[str]:
        """Message ids that are among the entries, oldest first."""
        return list(dict.fromkeys(e.subject["request_id"] for e in self.entries if "request_id" in e.subject))

    @property
    def set_by(self) -> list[str]:
        """Message ids that set the limits which the windows asked for were judged against."""
        cited = {c for e in self.verdicts if e.id in self.starts for c in e.cause}
        said = [e for e in self.entries if e.id in cited and "request_id" in e.subject]
        return list(dict.fromkeys(e.subject["request_id"] for e in said))

    @property
    def verdicts(self) -> list[StoredEntry]:
        """Judged windows among the entries."""
        return [e for e in self.entries if e.type == VERDICT]

    def levels(self) -> dict[str, int]:
        """How deep each entry stands: one below the deepest of its causes."""
        out: dict[str, int] = {}
        for entry in self.entries:
            out[entry.id] = 1 + max((out[c] for c in entry.cause if c in out), default=-1)
        return out

    def document(self) -> dict[str, Any]:
        """As JSON."""
        levels = self.levels()
        return {
            "id": self.id,
            "kind": self.kind,
            "entries": [entry_document(e, levels[e.id], asked=e.id in self.starts) for e in self.entries],
            "measurement": None if self.measurement is None else self.measurement.document(),
            "requests": self.requests,
            "set_by": self.set_by,
            "verdicts": [verdict_document(e) for e in self.verdicts],
            "truncated": self.truncated,
        }


def entry_document(entry: StoredEntry, level: int, *, asked: bool) -> dict[str, Any]:
    """An entry as JSON, and where it stands in the chain."""
    return {**sealed_document(entry), "level": level, "asked": asked}


def sealed_document(entry: StoredEntry) -> dict[str, Any]:
    """An entry as JSON: its sealed words and its place in the log."""
    sealed = entry.document
    return {
        "index": entry.idx,
        "id": entry.id,
        "at": sealed.get("at"),
        "type": entry.type,
        "dir": sealed.get("dir"),
        "actor": sealed.get("actor"),
        "subject": entry.subject,
        "cause": list(entry.cause),
        "raw": sealed.get("raw"),
        "body": entry.body,
        "result": sealed.get("result"),
        "reason": sealed.get("reason", ""),
    }


def verdict_document(entry: StoredEntry) -> dict[str, Any]:
    """A judged window as JSON."""
    return {"id": entry.id, "node": entry.subject.get("node"), "envelope": entry.subject.get("envelope"), **entry.body}


def trace(reader: EvidenceReader, asked: str) -> Lineage | None:
    """What the store knows under ``asked``; None if nothing.

    Raises:
        NotUtc: the time in ``NODE@TIME`` is none.
        StoreError: the store cannot be read.
    """
    entry = reader.by_id(asked)
    if entry is not None:
        return _walk(reader, asked, "entry", [entry])
    named = reader.by_subject("request_id", asked, limit=MAX_STARTS + 1)
    if named:
        return _walk(reader, asked, "request", named)
    measured = _measurement(reader, asked)
    if measured is not None:
        return measured
    found = reader.by_any_subject(asked, limit=MAX_STARTS + 1)
    if not found:
        return None
    kinds = [kind for kind, value in found[0].subject.items() if value == asked]
    return _walk(reader, asked, kinds[0] if kinds else "subject", found)


# --- from a meter value -----------------------------------------------------------------------


def _measurement(reader: EvidenceReader, asked: str) -> Lineage | None:
    node, at_sign, text = asked.rpartition("@")
    instant = parse_rfc3339(text) if at_sign else None
    node = node if at_sign else asked
    try:
        sample = _sample(reader, node, instant)
    except StoreError:
        if at_sign:
            raise
        return None  # no samples were ever stored: then it is no meter value that is meant
    if sample is None:
        return None
    windows, covered = _windows(reader, node, sample.at)
    starts = {entry.id: entry for entry in (*windows, *_in_force(reader, node, sample.at, windows))}
    found = _walk(reader, asked, "measurement", list(starts.values()), effects=False)
    measured = Measured(NodeId(node), Quantity.P, sample, covered)
    return Lineage(asked, "measurement", found.entries, found.starts, measured, found.truncated)


def _sample(reader: EvidenceReader, node: str, instant: datetime | None) -> StoredSample | None:
    """The power measured last at or before ``instant``; the newest one without it."""
    if not any(series.node == node and series.quantity == Quantity.P.value for series in reader.series()):
        return None
    if instant is None:
        tail = reader.tail(1)
        end = max(datetime.now(UTC), *(entry.at for entry in tail)) + _SKEW if tail else datetime.now(UTC) + _SKEW
    else:
        end = instant + timedelta(milliseconds=1)
    width = 2 * _SKEW if instant is None else timedelta(minutes=1)
    while True:
        start = max(end - width, datetime(1970, 1, 1, tzinfo=UTC))
        rows = reader.samples(node, Quantity.P, start, end)
        while len(rows) == MAX_ROWS:
            rows = reader.samples(node, Quantity.P, rows[-1].at, end)
        if rows:
            return rows[-1]
        if end - width <= start and start.year == 1970:
            return None
        width = min(width * 4, end - datetime(1970, 1, 1, tzinfo=UTC))


def _windows(reader: EvidenceReader, node: str, at: datetime) -> tuple[list[StoredEntry], bool]:
    """The judged windows that hold ``at``, of the nearest node that has any, from ``node`` upwards.

    A value that came after the last judgement gets the window before it, and False.
    """
    path = node
    while path:
        near = _near_windows(reader, path, at)
        holding = [e for e in near if _start(e) <= at < _end(e)]
        if holding:
            return holding, True
        before = [e for e in near if _end(e) <= at]
        if before:
            latest = max(_end(e) for e in before)
            return [e for e in before if _end(e) == latest], False
        path = path.rpartition("/")[0]
    return [], False


def _near_windows(reader: EvidenceReader, node: str, at: datetime) -> list[StoredEntry]:
    """Windows of a node that were judged around ``at``, newest first."""
    find = _about(reader, "node", node, VERDICT)
    return find(_index_at(reader, find, at + _NEAR), 200)


def _in_force(reader: EvidenceReader, node: str, at: datetime, windows: Sequence[StoredEntry]) -> Iterator[StoredEntry]:
    """What held at ``at``: the decision, what the node had been told, the state of the envelopes judged."""
    finders = [_of_type(reader, DECISION)]
    finders += [_about(reader, "node", node, type_) for type_ in ("setpoint.sent", "setpoint.acknowledged")]
    finders += [_about(reader, "envelope", w.subject["envelope"], "envelope.state") for w in windows]
    for find in finders:
        yield from find(_index_at(reader, find, at), 1)


_Find = Callable[[int, int], list[StoredEntry]]
"""The newest entries of a kind before an index, so many at most."""


def _of_type(reader: EvidenceReader, type_: str) -> _Find:
    return lambda before, limit: reader.by_type(type_, before=before, limit=limit)


def _about(reader: EvidenceReader, kind: str, value: str, type_: str) -> _Find:
    return lambda before, limit: reader.by_subject(kind, value, type=type_, before=before, limit=limit)


def _index_at(reader: EvidenceReader, find: _Find, instant: datetime) -> int:
    """An index such that the newest entry before it is the last one at or before ``instant``."""
    low, high = 0, reader.head().size
    while low < high:
        middle = (low + high + 1) // 2
        newest = find(middle, 1)
        if not newest or newest[0].at <= instant:
            low = middle
        else:
            high = min(middle - 1, newest[0].idx)
    return low


def _start(entry: StoredEntry) -> datetime:
    return parse_rfc3339(str(entry.body.get("start")))


def _end(entry: StoredEntry) -> datetime:
    return parse_rfc3339(str(entry.body.get("end")))


# --- walking ----------------------------------------------------------------------------------


@dataclass
class _Found:
    """Entries met so far, and whether any were left out."""

    reader: EvidenceReader
    entries: dict[str, StoredEntry] = field(default_factory=dict)
    truncated: bool = False

    def take(self, entries: Iterable[StoredEntry]) -> list[StoredEntry]:
        """Note the new ones of ``entries`` as far as there is room; returns those."""
        fresh = []
        for entry in entries:
            if entry.id in self.entries:
                continue
            if len(self.entries) >= MAX_ENTRIES:
                self.truncated = True
                break
            self.entries[entry.id] = entry
            fresh.append(entry)
        return fresh


def _walk(
    reader: EvidenceReader, asked: str, kind: str, starts: Sequence[StoredEntry], *, effects: bool = True
) -> Lineage:
    """Everything that led to ``starts``, then what they led to."""
    found = _Found(reader, truncated=len(starts) > MAX_STARTS)
    first = found.take(starts[:MAX_STARTS])
    _follow_causes(found, first)
    if effects:
        _follow_effects(found, first)
    entries = sorted(found.entries.values(), key=lambda e: e.idx)
    return Lineage(asked, kind, entries, frozenset(e.id for e in first), truncated=found.truncated)


def _follow_causes(found: _Found, edge: Sequence[StoredEntry]) -> None:
    for _ in range(MAX_DEPTH):
        edge = [c for entry in edge for c in found.take(_causes(found.reader, entry))]
        if not edge:
            return
    found.truncated = True


def _causes(reader: EvidenceReader, entry: StoredEntry) -> list[StoredEntry]:
    causes = reader.causes(entry.id)
    return [c for c in causes if c.type not in _HISTORY] if entry.type == DECISION else causes


def _follow_effects(found: _Found, edge: Sequence[StoredEntry]) -> None:
    for _ in range(MAX_DEPTH):
        edge = [e for entry in edge for e in found.take(_effects(found, entry))]
        if not edge:
            return
    found.truncated = True


def _effects(found: _Found, entry: StoredEntry) -> list[StoredEntry]:
    effects = found.reader.effects(entry.id, limit=20 * MAX_EFFECTS)
    if entry.type == DECISION:
        effects = [e for e in effects if e.type != DECISION]
    kept: dict[str, list[StoredEntry]] = {}
    for effect in effects:
        kept.setdefault(effect.type, []).append(effect)
    if any(len(of_type) > MAX_EFFECTS for of_type in kept.values()):
        found.truncated = True
    return sorted((e for of_type in kept.values() for e in of_type[:MAX_EFFECTS]), key=lambda e: e.idx)
