"""Admission that knows what was before: who waits moves up, who paused comes back slowly. Pure.

allocator.md §7.2. Scanning in order and skipping what does not fit sheds no more than the end of
the order, so a small cut pauses few. What is added here is time: a car that has just begun is not
stopped, one that waits too long goes before its equals, one that was paused comes back only where
room has been there for a while. All state is given and returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from gateway.domain.allocation.admission import FIT_REL
from gateway.domain.allocation.few import Path
from gateway.domain.allocation.model import Ask, Stay
from gateway.domain.errors import InfeasibleAllocation


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast admission may change.

    Args:
        rotation_s: who has been refused for so long goes before all of its priority.
        restart_margin: what must be left beside the minimum for a restart, in the unit of the asks.
        restart_delay_s: for how long it must have been left.
        min_on_s: who began more recently is stopped last.
        min_off_s: who was refused more recently is not admitted again.

    Raises:
        InfeasibleAllocation: one of them is negative or not finite.
    """

    rotation_s: float = 900.0
    restart_margin: float = 1.0
    restart_delay_s: float = 60.0
    min_on_s: float = 0.0
    min_off_s: float = 0.0

    def __post_init__(self) -> None:
        spans = (self.rotation_s, self.restart_margin, self.restart_delay_s, self.min_on_s, self.min_off_s)
        if not all(isfinite(value) and value >= 0 for value in spans):
            raise InfeasibleAllocation(f"{self}: every value is a finite number of at least 0")


@dataclass(frozen=True, slots=True)
class Past:
    """What was before this instant; an ask that is not named in ``stays`` has just come."""

    stays: Mapping[str, Stay]
    now: float
    pace: Pace = Pace()


def admit_in_time(
    paths: Sequence[Path], room: Sequence[float], asks: Sequence[Ask], past: Past
) -> tuple[list[int], dict[str, Stay]]:
    """The refused asks in order, and what to give as :attr:`Past.stays` the next time.

    Args:
        paths: by ask, the rows it crosses, each with what one unit takes of it.
        room: headroom by row.
    """
    left = [value + FIT_REL * max(1.0, value) for value in room]
    refused, stays = [], {}
    for n in sorted(range(len(asks)), key=lambda n: rank(asks[n], past)):
        ask, path, before = asks[n], paths[n], past.stays.get(asks[n].id)
        has_room = _fits(path, left, ask.min + past.pace.restart_margin)
        if _stays_in(ask) or (_fits(path, left, ask.min) and _may_begin(before, past, has_room=has_room)):
            stays[ask.id] = before if before is not None and before.admitted else Stay(admitted=True, since=past.now)
            for row, take in path:
                left[row] -= take * ask.min
        else:
            stays[ask.id] = _refused(before, past.now, has_room=has_room)
            refused.append(n)
    return refused, stays


def _stays_in(ask: Ask) -> bool:
    """Whether it is admitted, come what may: its minimum is kept, or it has none."""
    return ask.keep or ask.min == 0


def rank(ask: Ask, past: Past) -> tuple[object, ...]:
    """Place in the order of admission: kept ones, then those inside ``min_on_s``, then by priority; inside it those
    that have waited ``rotation_s``, the pressed, those that leave first, those that charge, from the last begun,
    those that have waited longest, the name. So those who have charged longest make room for a turn.
    """
    stay = past.stays.get(ask.id)
    charges = stay is not None and stay.admitted
    lasts = 0.0 if stay is None else past.now - stay.since
    return (
        not ask.keep,
        not (charges and lasts < past.pace.min_on_s),
        -ask.priority,
        not _is_overdue(stay, past),
        inf if ask.laxity_s is None else ask.laxity_s,
        inf if ask.deadline is None else ask.deadline,
        not charges,
        lasts if charges else -lasts,
        ask.id,
    )


def _is_overdue(stay: Stay | None, past: Past) -> bool:
    return stay is not None and not stay.admitted and past.now - stay.since >= past.pace.rotation_s


def _may_begin(stay: Stay | None, past: Past, *, has_room: bool) -> bool:
    """Whether an ask whose minimum fits may have it now.

    Who is overdue takes another's place, so there is no room to wait for.
    """
    if stay is None or stay.admitted:
        return True
    if past.now - stay.since < past.pace.min_off_s:
        return False
    if _is_overdue(stay, past):
        return True
    since = past.now if stay.room_since is None else stay.room_since
    return has_room and past.now - since >= past.pace.restart_delay_s


def _fits(path: Path, left: Sequence[float], need: float) -> bool:
    return all(take * need <= left[row] for row, take in path)


def _refused(before: Stay | None, now: float, *, has_room: bool) -> Stay:
    """A refusal goes on, or begins; so does the time for which there has been room."""
    since, room_since = (now, None) if before is None or before.admitted else (before.since, before.room_since)
    if not has_room:
        return Stay(admitted=False, since=since)
    return Stay(admitted=False, since=since, room_since=now if room_since is None else room_since)
