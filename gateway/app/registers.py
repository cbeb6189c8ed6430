"""What a source is told about its nodes: meter registers, momentary power, sessions. Pure.

Values are Wh and W as measured, never differences between two reports. ``since`` marks a register
that began with a session; whoever carries a report takes what its peer wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gateway.domain.evidence import Json
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import WattHours
from gateway.domain.timeline import rfc3339

if TYPE_CHECKING:
    from gateway.app.state import Session, Work

MAX_FINISHED = 200
"""Ended sessions that wait for their last report; more than that in one period is no charging site."""

FINISHED_PERIODS = 10
"""Periods after which an ended session is forgotten, told or not."""

RESTART_WH = 1_000
"""A difference that falls by more than this has begun anew; by less, two meters were read apart."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The energy of a session that is over; ``noted_at`` is when the site learned of its end."""

    evse: NodeId
    since: datetime
    until: datetime
    energy_wh: int
    noted_at: datetime


def values_of(work: Work, node: NodeId, last: datetime) -> list[Json]:
    """Everything to tell about a node whose last report was made at ``last``."""
    out: list[Json] = []
    for quantity in (Quantity.E_IMPORT, Quantity.E_EXPORT):
        point = work.points.get((node, quantity))
        if point is not None and point.quality is Quality.GOOD:
            out.append(_value(quantity, point.value, point.measured_at, "TOTAL"))
    flexible = flexible_register_wh(work, node)
    if out and flexible is not None:
        out.append(_value(Quantity.E_IMPORT, *flexible, "FLEXIBLE"))
        rest = _nonflexible(work, node, *flexible)
        if rest is not None:
            out.append(_value(Quantity.E_IMPORT, *rest, "NONFLEXIBLE"))
    return [*out, *_power(work, node), *_sessions(work, node, last)]


def flexible_register_wh(work: Work, node: NodeId) -> tuple[int, datetime] | None:
    """Sum of the EVSE registers below a node and the oldest of their times; None if one is unknown."""
    points = [work.points.get((evse.path, Quantity.E_IMPORT)) for evse in work.facts.tree.evses(node)]
    known = [p for p in points if p is not None]
    if not known or len(known) != len(points):
        return None
    return sum(p.value for p in known), min(p.measured_at for p in known)


def note_finished(work: Work, session: Session, ended_at: datetime, energy_wh: WattHours | None) -> None:
    """Remember an ended session until it has been told."""
    if energy_wh is None or energy_wh < 0:
        return
    done = Finished(session.evse, session.started_at, ended_at, energy_wh, work.now)
    oldest = work.now - FINISHED_PERIODS * timedelta(seconds=work.settings.report_s)
    kept = {k: f for k, f in work.control.finished.items() if f.noted_at > oldest}
    newest = list(kept.items())[-(MAX_FINISHED - 1) :]
    work.set_control(finished={**dict(newest), session.id: done})


def _nonflexible(work: Work, node: NodeId, flexible_wh: int, at: datetime) -> tuple[int, datetime] | None:
    """What the node's own meter counted beyond the EVSEs. It never falls by a little.

    Two meters are never read at one instant, so the difference of their registers may step back
    where neither does.
    """
    total = work.points.get((node, Quantity.E_IMPORT))
    if total is None or total.quality is not Quality.GOOD or total.value < flexible_wh:
        return None
    value, told = total.value - flexible_wh, work.control.nonflexible.get(node)
    if told is not None and told - RESTART_WH <= value < told:
        value = told
    if value != told:
        work.set_control(nonflexible={**work.control.nonflexible, node: value})
    return value, min(at, total.measured_at)


def _power(work: Work, node: NodeId) -> list[Json]:
    point = work.points.get((node, Quantity.P))
    if point is None or point.quality is not Quality.GOOD:
        return []
    return [_value(Quantity.P, point.value, point.measured_at, "TOTAL")]


def _sessions(work: Work, node: NodeId, last: datetime) -> list[Json]:
    """Sessions below a node, running or ended since the last report: what each has taken."""
    below = {evse.path for evse in work.facts.tree.evses(node)}
    out: list[Json] = []
    for done in work.control.finished.values():
        if done.evse in below and done.noted_at > last:
            out.append(_since(done.since, _value(Quantity.E_IMPORT, done.energy_wh, done.until, "FLEXIBLE")))
    for session in work.sessions.values():
        point = work.points.get((session.evse, Quantity.E_IMPORT))
        start = session.meter_start_wh
        if session.evse in below and point is not None and start is not None and point.value >= start:
            taken = _value(Quantity.E_IMPORT, point.value - start, point.measured_at, "FLEXIBLE")
            out.append(_since(session.started_at, taken))
    return out


def _value(quantity: Quantity, value: int, measured_at: datetime, scope: str) -> Mapping[str, Json]:
    return {"quantity": quantity.value, "value": value, "measured_at": rfc3339(measured_at), "scope": scope}


def _since(started_at: datetime, value: Mapping[str, Json]) -> Mapping[str, Json]:
    return {**value, "since": rfc3339(started_at)}
