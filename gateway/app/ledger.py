"""The grant ledger: what each EVSE *may* hold, and what may be sent. Pure bookkeeping.

Worst case of an EVSE at an instant: the largest of its safe share, the schedule last proven
installed, every schedule that may be installed, and what it is measured to draw, schedules read
late by the guard. A command enters ``maybe`` before it is sent; an increase is sent only if the sum
of worst cases fits every ancestor at every coming edge; a decrease may always be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from gateway.app.limits import Picture
from gateway.app.state import Grant, Held, Sent, Settings
from gateway.domain.ids import CommandId, NodeId
from gateway.domain.quantities import Watts
from gateway.domain.schedule import Schedule, build, constant
from gateway.domain.topology import EvseFacts, Tree


def worst_case_w(grant: Grant, facts: EvseFacts, at: datetime, settings: Settings, drawn_w: int) -> int:
    """The most the EVSE could draw at ``at``, W. ``drawn_w``: what it is measured to draw now."""
    if grant.lying or grant.share.confirmed is None:
        return max(facts.max_w, drawn_w)
    read = at - timedelta(seconds=settings.guard_s)
    values = [grant.share.confirmed.floor_w, drawn_w]
    values += [sent.schedule.floor_w for sent in grant.share.maybe]
    values += [schedule.at(read) for schedule in installed(grant.session)]
    return max(values)


def installed(held: Held) -> tuple[Schedule, ...]:
    """Every schedule of a layer that may be installed."""
    confirmed = () if held.confirmed is None else (held.confirmed,)
    return (*confirmed, *(sent.schedule for sent in held.maybe))


def held_for_good_w(grant: Grant) -> int:
    """The most that may still stand when every schedule has ended by itself, W."""
    return max((schedule.floor_w for held in (grant.share, grant.session) for schedule in installed(held)), default=0)


def latest(held: Held) -> Schedule | None:
    """The schedule we last asked for that may still count, else the confirmed one."""
    return held.maybe[-1].schedule if held.maybe else held.confirmed


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
    instants = {now, *(e for s in (a, b) for e in s.edges if e > now)}
    return any(a.at(t) < b.at(t) - by_w for t in instants)


def send(held: Held, sent: Sent) -> Held:
    """The layer with one more schedule that may be installed."""
    return replace(held, maybe=(*held.maybe, replace(sent, alone=not held.waits())))


def accept(held: Held, command: CommandId, now: datetime, *, ordered: bool, dead_frame_s: int) -> Held:
    """The layer after ``command`` was accepted (ledger rule 8).

    It resolves what was sent before it on the same connection, when order is certain or nothing
    else was open. What older connections carried stays until it ends by itself; a share has no
    end, so frames of a dead connection count for ``dead_frame_s``.
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
        dead = sent.sent_at + timedelta(seconds=dead_frame_s) <= hit.sent_at
        return not (dead and sent.schedule.ends_at <= hit.sent_at)

    return Held(hit.schedule, now, tuple(sent for sent in held.maybe if stays(sent)))


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


class Balance:
    """Sums of worst cases per node and coming edge, kept while commands are chosen."""

    def __init__(self, tree: Tree, picture: Picture, settings: Settings) -> None:
        self._tree = tree
        self._picture = picture
        self._settings = settings
        self.count = len(picture.instants)
        every = {path: [picture.limit_w(path, k) for k in range(self.count)] for path in tree.nodes}
        self._limits = {path: limits for path, limits in every.items() if any(x is not None for x in limits)}
        self.by_evse: dict[NodeId, list[int]] = {}
        self.sums: dict[NodeId, list[int]] = {path: [load] * self.count for path, load in picture.loads.items()}

    def cases(self, grant: Grant, facts: EvseFacts, drawn_w: int) -> list[int]:
        """Worst case of an EVSE at every edge."""
        return [worst_case_w(grant, facts, t, self._settings, drawn_w) for t in self._picture.instants]

    def count_in(self, evse: NodeId, cases: list[int]) -> None:
        """Count an EVSE for the first time."""
        self.by_evse[evse] = cases
        self.add(evse, cases)

    def add(self, evse: NodeId, cases: list[int]) -> None:
        """Count W per edge (or a change of them) of an EVSE at itself and all its ancestors."""
        for above in self._tree.ancestors(evse):
            sums = self.sums[above]
            for k, value in enumerate(cases):
                sums[k] += value

    def room(self, evse: NodeId) -> list[int]:
        """How much more the EVSE may take at every edge, W; negative where a limit is exceeded."""
        out = [2**53] * self.count
        for above in self._tree.ancestors(evse):
            limits = self._limits.get(above)
            if limits is not None:
                sums = self.sums[above]
                out = [o if x is None else min(o, x - s) for o, x, s in zip(out, limits, sums, strict=True)]
        return out

    def exceeded(self) -> Mapping[NodeId, list[int]]:
        """Nodes whose sum is above their limit: W too much per edge (0 where it fits)."""
        out = {}
        for path, limits in self._limits.items():
            over = [
                0 if limit is None else max(0, total - limit)
                for total, limit in zip(self.sums[path], limits, strict=True)
            ]
            if any(over):
                out[path] = over
        return out


def share_schedule(share_w: int) -> Schedule:
    """The permanent share as a schedule."""
    return constant(Watts(share_w))
