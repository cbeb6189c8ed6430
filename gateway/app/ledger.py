"""The grant ledger: what each EVSE *may* hold, and what may be sent. Pure bookkeeping.

Worst case of an EVSE at an instant: the largest of its safe share, the schedule last proven
installed, every schedule that may be installed, and what it is measured to draw, schedules read
late by the guard. A command enters ``maybe`` before it is sent; an increase is sent only if the sum
of worst cases fits every ancestor at every coming edge; a decrease may always be sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec.structs import replace

from gateway.app.limits import Picture
from gateway.app.state import Fading, Grant, Held, Sent, Settings
from gateway.domain.ids import CommandId, NodeId
from gateway.domain.quantities import Phase, Watts
from gateway.domain.schedule import Schedule, build, constant
from gateway.domain.timeline import EPOCH
from gateway.domain.topology import EvseFacts, Tree


def worst_case_w(grant: Grant, facts: EvseFacts, at: datetime, settings: Settings, drawn_w: int) -> int:
    """The most the EVSE could draw at ``at``, W. ``drawn_w``: what it is measured to draw now."""
    if grant.lying or grant.share.confirmed is None:
        return max(facts.max_w, drawn_w)
    read = EPOCH if grant.wrong_clock else at - timedelta(seconds=settings.guard_s)
    values = [grant.share.confirmed.floor_w, drawn_w]
    values += [sent.schedule.floor_w for sent in grant.share.maybe]
    values += [schedule.at(read) for schedule in installed(grant.session)]
    values += [
        left.schedule.at(read) for held in (grant.share, grant.session) for left in held.fading if at < left.until
    ]
    return max(values)


def installed(held: Held) -> tuple[Schedule, ...]:
    """Every schedule of a layer that may be installed."""
    confirmed = () if held.confirmed is None else (held.confirmed,)
    return (*confirmed, *(sent.schedule for sent in held.maybe))


def held_for_good_w(grant: Grant) -> int:
    """The most that may still stand when every schedule has ended by itself, W."""
    return max((schedule.floor_w for held in (grant.share, grant.session) for schedule in installed(held)), default=0)


def latest(held: Held) -> Schedule | None:
    """The schedule we last asked for that may still count.

    What an old connection carried may be older than what was confirmed since.
    """
    asked = held.maybe[-1] if held.maybe else None
    if asked is None or (held.confirmed is not None and asked.version < held.confirmed_version):
        return held.confirmed
    return asked.schedule


def lowest(schedules: Iterable[Schedule], now: datetime) -> Schedule:
    """Pointwise minimum from ``now`` on: a decrease whatever is installed (ledger rule 2)."""
    known = tuple(schedules)
    instants = sorted({now, *(e for s in known for e in s.edges if e > now)})
    return build((t, Watts(min(s.at(t) for s in known))) for t in instants)


def ending_in(schedule: Schedule, share_w: int) -> Schedule:
    """The schedule with its open-ended last step no higher than ``share_w``."""
    *before, last = ((step.start, step.limit_w) for step in schedule.steps)
    return build((*before, (last[0], Watts(min(last[1], share_w)))))


def is_below(a: Schedule, b: Schedule, now: datetime, by_w: int = 0) -> bool:
    """Whether ``a`` is lower than ``b`` by more than ``by_w`` at any instant from now on."""
    if a is b:
        return False
    return a.at(now) < b.at(now) - by_w or any(
        step.start > now and a.at(step.start) < b.at(step.start) - by_w for s in (a, b) for step in s.steps
    )


def send(held: Held, sent: Sent) -> Held:
    """The layer with one more schedule that may be installed."""
    return replace(held, maybe=(*held.maybe, replace(sent, alone=not held.waits())))


def accept(held: Held, command: CommandId, now: datetime, *, ordered: bool, settings: Settings) -> Held:
    """The layer after ``command`` was accepted (ledger rule 8).

    It resolves what was sent before it on the same connection, when order is certain or nothing
    else was open. What older connections carried stays until it ends by itself; a share has no
    end, so frames of a dead connection count for ``dead_frame_s``. What is replaced counts until a
    car has had its time to follow.
    """
    hit = next((sent for sent in held.maybe if sent.command == command), None)
    if hit is None:
        return held

    def stays(sent: Sent) -> bool:
        if sent.version > hit.version:
            return True
        if sent.version == hit.version:
            return False
        if sent.generation == hit.generation:
            return not (ordered or hit.alone)
        dead = sent.sent_at + timedelta(seconds=settings.dead_frame_s) <= hit.sent_at
        return not (dead and sent.schedule.ends_at <= hit.sent_at)

    kept = tuple(sent for sent in held.maybe if stays(sent))
    gone = [sent.schedule for sent in held.maybe if sent is not hit and sent not in kept]
    gone += [] if held.confirmed is None else [held.confirmed]
    until = now + timedelta(seconds=settings.guard_s)
    left = tuple(Fading(schedule, until) for schedule in gone if is_below(hit.schedule, schedule, now))
    fading = (*(f for f in held.fading if f.until > now), *left)
    return Held(hit.schedule, now, kept, fading, hit.version)


def drop(held: Held, command: CommandId) -> Held:
    """The layer without a command that certainly was not installed."""
    return replace(held, maybe=tuple(sent for sent in held.maybe if sent.command != command))


def unresolved(held: Held, command: CommandId | None = None) -> Held:
    """The layer with a command (or all) no longer waited for, yet possibly installed."""
    maybe = tuple(
        replace(sent, open=False) if command is None or sent.command == command else sent for sent in held.maybe
    )
    return held if maybe == held.maybe else replace(held, maybe=maybe)


def prune(held: Held, now: datetime, settings: Settings) -> Held:
    """The layer without schedules that have run out to a value that another of them covers anyway.

    A schedule that has run out is still installed: its open-ended share goes on to hold, also when
    the permanent share falls below it. Only what can be answered no more covers another. What was
    asked last stays in any case.
    """
    read = now - timedelta(seconds=settings.guard_s)
    answerable = now - timedelta(seconds=settings.dead_frame_s)
    covered_w = -1 if held.confirmed is None else held.confirmed.floor_w
    kept = list(held.maybe[-1:])
    for sent in reversed(held.maybe[:-1]):
        spent = not sent.open and sent.schedule.ends_at <= read and sent.sent_at <= answerable
        if spent and sent.schedule.floor_w <= covered_w:
            continue
        kept.append(sent)
        covered_w = max(covered_w, sent.schedule.floor_w) if spent else covered_w
    return held if len(kept) == len(held.maybe) else replace(held, maybe=tuple(reversed(kept)))


def fade(held: Held, now: datetime) -> Held:
    """The layer without schedules that every car has had its time to leave."""
    fading = tuple(left for left in held.fading if left.until > now)
    return held if len(fading) == len(held.fading) else replace(held, fading=fading)


def followed(grant: Grant) -> Grant:
    """The grant once every car has left what was replaced."""
    if not (grant.share.fading or grant.session.fading):
        return grant
    return replace(grant, share=replace(grant.share, fading=()), session=replace(grant.session, fading=()))


class Balance:
    """Sums of worst cases per node and coming edge, kept while commands are chosen.

    Beside the W of every limited node stand the mA of every limited phase: what an EVSE may hold
    puts on each of its phases what its facts say.
    """

    def __init__(self, tree: Tree, picture: Picture, settings: Settings) -> None:
        self._tree = tree
        self._picture = picture
        self._settings = settings
        self.count = len(picture.instants)
        self._limits: dict[NodeId, list[int | None]] = {}
        self._phases: dict[NodeId, dict[Phase, list[int | None]]] = {}
        for path, rows in picture.bounds.items():
            for phase in dict.fromkeys(bound.phase for bounds in dict.fromkeys(rows) for bound in bounds):
                limits = [picture.limit(path, k, phase) for k in range(self.count)]
                if phase is None:
                    self._limits[path] = limits
                else:
                    self._phases.setdefault(path, {})[phase] = limits
        self.by_evse: dict[NodeId, list[int]] = {}
        self.sums = {path: [picture.loads[path].power_w] * self.count for path in self._limits}
        self._currents = {
            path: {phase: [picture.loads[path].current_ma(phase)] * self.count for phase in phases}
            for path, phases in self._phases.items()
        }

    def cases(self, grant: Grant, facts: EvseFacts, drawn_w: int) -> list[int]:
        """Worst case of an EVSE at every edge."""
        return [worst_case_w(grant, facts, t, self._settings, drawn_w) for t in self._picture.instants]

    def count_in(self, evse: NodeId, cases: list[int]) -> None:
        """Count an EVSE at W per edge, at itself and all its ancestors, instead of what it counted at."""
        before = self.by_evse.get(evse) or [0] * self.count
        self.by_evse[evse] = cases
        for above in self._tree.ancestors(evse):
            sums = self.sums.get(above)
            if sums is not None:
                sums[:] = [s + new - old for s, new, old in zip(sums, cases, before, strict=True)]
        if self._phases:
            self._count_currents(evse, cases, before)

    def _count_currents(self, evse: NodeId, cases: list[int], before: list[int]) -> None:
        facts = self._tree.facts(evse)
        more = [facts.current_ma(new) - facts.current_ma(old) for new, old in zip(cases, before, strict=True)]
        for currents in self._currents_above(evse, facts):
            currents[:] = [s + m for s, m in zip(currents, more, strict=True)]

    def _currents_above(self, evse: NodeId, facts: EvseFacts) -> list[list[int]]:
        return [
            currents
            for above in self._tree.ancestors(evse)
            for phase, currents in self._currents.get(above, {}).items()
            if phase in facts.phases
        ]

    def ceiling(self, evse: NodeId, held: list[int]) -> list[int]:
        """The most that the EVSE may be given at every edge, W.

        What it may hold already (``held``) it may be given again. What it is measured to draw, or is leaving,
        counts and gives no right to it.
        """
        cases = self.by_evse[evse]
        room = [2**53] * self.count
        for above in self._tree.ancestors(evse):
            limits = self._limits.get(above)
            if limits is not None:
                room = _least(room, limits, self.sums[above])
        most = [case + r for case, r in zip(cases, room, strict=True)]
        if self._phases:
            most = self._ceiling_by_phase(evse, cases, most)
        return [max(m, h) for m, h in zip(most, held, strict=True)]

    def _ceiling_by_phase(self, evse: NodeId, cases: list[int], most: list[int]) -> list[int]:
        facts = self._tree.facts(evse)
        room = [2**53] * self.count
        for above in self._tree.ancestors(evse):
            for phase, limits in self._phases.get(above, {}).items():
                if phase in facts.phases:
                    room = _least(room, limits, self._currents[above][phase])
        return [
            min(m, facts.power_w(max(facts.current_ma(case) + r, 0)))
            for m, case, r in zip(most, cases, room, strict=True)
        ]

    def exceeded(self) -> frozenset[NodeId]:
        """Nodes that hold more than one of their limits at any edge."""
        every = [(path, self._limits[path], self.sums[path]) for path in self._limits]
        every += [
            (path, limits, self._currents[path][phase])
            for path, phases in self._phases.items()
            for phase, limits in phases.items()
        ]
        return frozenset(path for path, limits, sums in every if min(_least([0] * self.count, limits, sums)) < 0)

    def excess_now(self) -> dict[tuple[NodeId, Phase | None], int]:
        """What is above its limit now and by how much: W, or mA on a phase."""
        rows = {(path, None): (limits, self.sums[path]) for path, limits in self._limits.items()}
        over: dict[tuple[NodeId, Phase | None], int] = {
            key: sums[0] - limits[0] for key, (limits, sums) in rows.items() if limits[0] is not None
        }
        for path, phases in self._phases.items():
            for phase, limits in phases.items():
                if limits[0] is not None:
                    over[path, phase] = self._currents[path][phase][0] - limits[0]
        return {key: excess for key, excess in over.items() if excess > 0}


def _least(room: list[int], limits: list[int | None], sums: list[int]) -> list[int]:
    """``room``, or what a row leaves of its limits where that is less."""
    return [r if x is None else min(r, x - s) for r, x, s in zip(room, limits, sums, strict=True)]


def share_schedule(share_w: int) -> Schedule:
    """The permanent share as a schedule."""
    return constant(Watts(share_w))
