"""The checks at the end of a story: what was seen from outside. Each can fail, and names its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from gateway.testing.narrate import Check, watts
from gateway.testing.offline import Left
from gateway.testing.physics import TOLERANCE_W, Physics, Register
from gateway.testing.stage import SitePlan

REGISTER_TOLERANCE = 0.02
"""Part of the register by which a reported value may differ."""

REGISTER_FLOOR_WH = 20.0
"""A whole-Wh register read some seconds ago differs by so much at the site's full power."""

REPORT_S = 60.0
"""Story seconds between two reports of a register; fewer than a third of them are no metering."""


@dataclass(frozen=True, slots=True)
class Reported:
    """One register reading as the DSO received it."""

    wh: float
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A forecast and when its 204 was there."""

    request: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Visit:
    """A car's stay at a station, as the station saw it. ``left_at`` None: it is still there."""

    station: str
    node: str
    came_at: datetime
    left_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """When the gateway was killed, and when the next one was ready (None: never)."""

    killed_at: datetime
    ready_at: datetime | None = None

    def covers(self, instant: datetime) -> bool:
        """Whether nobody was there at ``instant``."""
        return self.killed_at <= instant and (self.ready_at is None or instant < self.ready_at)


@dataclass(frozen=True, slots=True)
class Lie:
    """Since when which station keeps no limit."""

    station: str
    node: str
    since: datetime


@dataclass
class Notebook:
    """What the world saw happen, beside the physics.

    ``signal`` is the request id whose effect was timed, ``ack_ms`` real ms from when it took
    effect to the last station's acceptance, ``kept_at`` when the site was physically below it,
    ``kept_ms`` the real ms until then. ``deadline`` is when the DSO's promise ran out, ``fresh_at``
    when it sent the first forecast after that. ``repeated`` counts forecasts that were sent twice.
    """

    forecasts: list[Acknowledged] = field(default_factory=list)
    missing_at_204: list[str] = field(default_factory=list)
    signal: str = ""
    ack_ms: float | None = None
    kept_ms: float | None = None
    kept_at: datetime | None = None
    heartbeats_out: int = 0
    heartbeats_in: int = 0
    reports: list[Reported] = field(default_factory=list)
    profiles: Mapping[str, int] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    repeated: int = 0
    deadline: datetime | None = None
    fresh_at: datetime | None = None
    lie: Lie | None = None
    meter_readings: int = 0
    meter_refusals: list[tuple[datetime, datetime, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Evening:
    """What is judged: who was there, what flowed, what was seen to happen, what is left on disk."""

    plan: SitePlan
    physics: Physics
    notes: Notebook
    left: Left
    starts: datetime
    ends: datetime
    speed: float

    @property
    def minutes(self) -> float:
        """How long it was, in story minutes."""
        return (self.ends - self.starts).total_seconds() / 60


Trial = Callable[[Evening], Check]
"""One thing that must be true of an evening."""


def no_excess(evening: Evening) -> Check:
    """Nothing was above what was permitted, at any node, at any second that is not forgiven."""
    excess = evening.physics.excess
    words = (
        f"{node} {watts(e.blamed_w)} for {e.blamed_s:.0f} s"
        + (f", last at {e.blamed_at:%H:%M:%S}" if e.blamed_at else "")
        for node, e in sorted(excess.items())
    )
    ok = bool(excess) and all(e.blamed_w == 0 for e in excess.values())
    return Check("no_excess", ok, "worst above what was permitted: " + (", ".join(words) or "nothing was watched"))


def power_used(share: float) -> Trial:
    """The cars got this part of what the limits allowed: a site that is simply off fails."""

    def trial(evening: Evening) -> Check:
        offered, delivered = evening.physics.offered.wh, evening.physics.delivered_wh()
        part = delivered / offered if offered > 0 else 0.0
        text = f"cars took {delivered:.0f} Wh of {offered:.0f} Wh that was possible ({part:.0%}, wanted {share:.0%})"
        return Check("power_used", offered > 0 and part >= share, text)

    return trial


def stations_followed(evening: Evening) -> Check:
    """Every station accepted at least one charging profile."""
    counts = {s.id: evening.notes.profiles.get(s.id, 0) for s in evening.plan.stations}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Check("stations_followed", bool(counts) and min(counts.values()) > 0, f"profiles accepted: {text}")


def durable(evening: Evening) -> Check:
    """Every forecast was in the store when its 204 arrived."""
    notes = evening.notes
    missing = len(notes.missing_at_204)
    text = f"{len(notes.forecasts) - missing} of {len(notes.forecasts)} forecasts were stored when acknowledged"
    return Check("durable_before_204", bool(notes.forecasts) and not missing, text)


def heartbeats(evening: Evening) -> Check:
    """Heartbeats flowed both ways."""
    notes = evening.notes
    text = f"{notes.heartbeats_out} from the DSO, {notes.heartbeats_in} to the DSO"
    return Check("heartbeats", notes.heartbeats_out > 0 and notes.heartbeats_in > 0, text)


def registers_agree(evening: Evening) -> Check:
    """What the DSO was told agrees with what physically flowed."""
    register = evening.physics.registers.get(evening.plan.root, Register())
    reports = evening.notes.reports
    worst, wrong = 0.0, 0
    for report in reports:
        true = register.at(report.measured_at)
        off = abs(report.wh - true)
        worst = max(worst, off)
        wrong += off > max(REGISTER_TOLERANCE * true, REGISTER_FLOOR_WH)
    count, wanted = len(reports), max(2, int(evening.minutes * 60 / REPORT_S / 3))
    text = (
        f"{count} readings of the site's register (wanted {wanted}), worst difference {worst:.0f} Wh, "
        f"{wrong} outside 2 %"
    )
    rising = count > 0 and reports[-1].wh > reports[0].wh
    return Check("measurements", count >= wanted and rising and wrong == 0, text)


def meters_heard(evening: Evening) -> Check:
    """Every meter reading was taken, except while nobody was there to take it."""
    notes = evening.notes
    unexcused = [r for r in notes.meter_refusals if not any(_overlap(r, death) for death in notes.deaths)]
    text = f"{notes.meter_readings} meter readings stored, {len(unexcused)} refused"
    excused = len(notes.meter_refusals) - len(unexcused)
    if excused:
        text += f", {excused} lost while the gateway was dead"
    if unexcused:
        text += f": {unexcused[0][2]}"
    return Check("meters_heard", notes.meter_readings > 0 and not unexcused, text)


def cut_acknowledged(evening: Evening) -> Check:
    """The cut without warning reached every station that had to follow, and was kept."""
    took_ms = evening.notes.ack_ms
    if took_ms is None:
        return Check("cut_acknowledged", False, f"{_NOBODY} after the cut, 0 ms measured")
    return Check("cut_acknowledged", True, f"{took_ms:.0f} ms from the post to the last acceptance")


def fallback_in_time(evening: Evening) -> Check:
    """The last station accepted its lower limit within a second after the DSO's promise ran out."""
    took_ms, kept_ms = evening.notes.ack_ms, evening.notes.kept_ms
    if took_ms is None or kept_ms is None:
        return Check("fallback_in_time", False, f"{_NOBODY} after the deadline, 0 ms measured")
    text = (
        f"{took_ms:.0f} ms (real) from the deadline to the last acceptance of a lower limit, wanted 1000; "
        f"the site was seen below the fallback after {kept_ms:.0f} ms"
    )
    return Check("fallback_in_time", 0 <= took_ms <= 1_000, text)


def kept_while_dead(evening: Evening) -> Check:
    """Stations kept a cut that began while nobody told them anything, and went on charging."""
    deaths, root = evening.notes.deaths, evening.plan.root
    dead = [r for r in evening.physics.track if any(d.covers(r.at) for d in deaths)]
    falls = any(after.limit_w[root] < before.limit_w[root] for before, after in pairwise(dead))
    over = max((w for at, w in evening.physics.overs(root) if any(d.covers(at) for d in deaths)), default=0.0)
    least = min((sum(r.power_w[s.node] for s in evening.plan.stations) for r in dead), default=0.0)
    dead_s = sum(((d.ready_at or dead[-1].at) - d.killed_at).total_seconds() for d in deaths) if dead else 0.0
    text = (
        f"nobody there for {dead_s / evening.speed:.1f} s (real): {len(dead)} samples, worst above the limits known "
        f"{watts(max(over, 0.0))}, an announced cut began meanwhile: {'yes' if falls else 'no'}, "
        f"least drawn by the cars {watts(least)}"
    )
    return Check("kept_while_dead", falls and over <= TOLERANCE_W and least > 0, text)


def made_room(within_s: float) -> Trial:
    """A station lied to an effect; the others made room for it, and the site kept its limit from then on."""

    def trial(evening: Evening) -> Check:
        lie, physics = evening.notes.lie, evening.physics
        seen = physics.excess.get(evening.plan.root)
        if lie is None or seen is None:
            return Check("others_made_room", False, "nobody lied, 0 W")
        above = [at for at, over in physics.overs(evening.plan.root) if over > TOLERANCE_W]
        late = [at for at in above if at > lie.since + timedelta(seconds=within_s)]
        last = max(above, default=lie.since)
        text = (
            f"{lie.station} took up to {watts(seen.worst_w)} too much; the others had made room "
            f"{(last - lie.since).total_seconds():.0f} s later (wanted {within_s:.0f}), {len(late)} samples after that"
        )
        return Check("others_made_room", seen.worst_w > LEAST_LIE_W and not late, text)

    return trial


LEAST_LIE_W = 1_000.0
"""A smaller excess would not show that somebody lied."""

_NOBODY = "no station accepted a lower limit"


def _overlap(refusal: tuple[datetime, datetime, str], death: Death) -> bool:
    start, end, _ = refusal
    return end >= death.killed_at and (death.ready_at is None or start <= death.ready_at)
