"""The checks at the end of a story. Each of them can fail, and names its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.testing.narrate import Check, watts
from gateway.testing.physics import Physics, Register
from gateway.testing.stage import StationPlan

REGISTER_TOLERANCE = 0.02
"""Part of the register by which a reported value may differ."""

REGISTER_FLOOR_WH = 20.0
"""A whole-Wh register read some seconds ago differs by so much at the site's full power."""

LEAST_REPORTS = 5
"""Fewer readings in three quarters of an hour are no metering."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One register reading as the DSO received it."""

    wh: float
    measured_at: datetime


@dataclass
class Notebook:
    """What the world saw happen, beside the physics."""

    forecasts: list[str] = field(default_factory=list)
    missing_at_204: list[str] = field(default_factory=list)
    cut_request: str = ""
    cut_ms: float | None = None
    cut_kept_at: datetime | None = None
    heartbeats_out: int = 0
    heartbeats_in: int = 0
    reports: list[Reported] = field(default_factory=list)
    profiles: Mapping[str, int] = field(default_factory=dict)


def judge(physics: Physics, notes: Notebook, stations: Sequence[StationPlan], root: str, share: float) -> list[Check]:
    """Every check that needs no second look at the store."""
    return [
        no_excess(physics),
        power_used(physics, share),
        stations_followed(notes, stations),
        durable(notes),
        heartbeats(notes),
        registers_agree(notes, physics.registers.get(root, Register())),
        cut_was_timed(notes),
    ]


def no_excess(physics: Physics) -> Check:
    """Nothing was above what was permitted, at any node, at any second."""
    words = (f"{node} {watts(e.worst_w)} for {e.seconds:.0f} s" for node, e in sorted(physics.excess.items()))
    watched = bool(physics.excess)
    ok = watched and all(e.worst_w == 0 for e in physics.excess.values())
    return Check("no_excess", ok, "worst above what was permitted: " + (", ".join(words) or "nothing was watched"))


def power_used(physics: Physics, share: float) -> Check:
    """The cars got their part of what the limits allowed: a site that is simply off fails."""
    offered, delivered = physics.offered.wh, physics.delivered_wh()
    part = delivered / offered if offered > 0 else 0.0
    text = f"cars took {delivered:.0f} Wh of {offered:.0f} Wh that was possible ({part:.0%}, wanted {share:.0%})"
    return Check("power_used", offered > 0 and part >= share, text)


def stations_followed(notes: Notebook, stations: Sequence[StationPlan]) -> Check:
    """Every station accepted at least one charging profile."""
    counts = {s.id: notes.profiles.get(s.id, 0) for s in stations}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Check("stations_followed", bool(counts) and min(counts.values()) > 0, f"profiles accepted: {text}")


def durable(notes: Notebook) -> Check:
    """Every forecast was in the store when its 204 arrived."""
    missing = len(notes.missing_at_204)
    text = f"{len(notes.forecasts) - missing} of {len(notes.forecasts)} forecasts were stored when acknowledged"
    return Check("durable_before_204", bool(notes.forecasts) and not missing, text)


def heartbeats(notes: Notebook) -> Check:
    """Heartbeats flowed both ways."""
    text = f"{notes.heartbeats_out} from the DSO, {notes.heartbeats_in} to the DSO"
    return Check("heartbeats", notes.heartbeats_out > 0 and notes.heartbeats_in > 0, text)


def registers_agree(notes: Notebook, register: Register) -> Check:
    """What the DSO was told agrees with what physically flowed."""
    worst, wrong = 0.0, 0
    for report in notes.reports:
        true = register.at(report.measured_at)
        off = abs(report.wh - true)
        worst = max(worst, off)
        wrong += off > max(REGISTER_TOLERANCE * true, REGISTER_FLOOR_WH)
    count = len(notes.reports)
    text = f"{count} readings of the site's register, worst difference {worst:.0f} Wh, {wrong} outside 2 %"
    rising = count > 0 and notes.reports[-1].wh > notes.reports[0].wh
    return Check("measurements", count >= LEAST_REPORTS and rising and wrong == 0, text)


def cut_was_timed(notes: Notebook) -> Check:
    """The cut without warning reached every station that had to follow."""
    if notes.cut_ms is None:
        return Check("cut_acknowledged", False, "no station accepted a lower limit after the cut")
    return Check("cut_acknowledged", True, f"{notes.cut_ms:.0f} ms from the post to the last acceptance")
