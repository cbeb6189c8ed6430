"""The composite schedule: what a station holding certain profiles must allow, and what it says. Pure.

Within one purpose the highest stack level that has a value now wins; a transaction's profile takes
the place of the default for the instants at which it has one; between purposes the lowest holds
(OCPP 1.6 §3.13, 2.0.1 K01 and K08). Values are converted after they were chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.wire import Version, encode, request_decoder, response_decoder, v16, v201

SLACK_S = 10
"""How far the edges of two schedules may lie apart: a station's clock and its reaction."""

TOLERANCE_A, TOLERANCE_W = 0.11, 1.0
"""A step of OCPP's currents; a rounded watt. What was converted on the way may be off by 1 % more."""

MAX_PIECES = 1024
"""Periods of one schedule that are read (2.0.1 K01); further ones are no answer of a station's."""

_CYCLES = {"Daily": timedelta(days=1), "Weekly": timedelta(weeks=1)}
_ALWAYS = datetime.min.replace(tzinfo=UTC)


class Purpose(StrEnum):
    """What a profile is for, in both versions."""

    EXTERNAL = "external"
    STATION_MAX = "station_max"
    DEFAULT = "default"
    TRANSACTION = "transaction"


_PURPOSES = {
    "ChargePointMaxProfile": Purpose.STATION_MAX,
    "ChargingStationMaxProfile": Purpose.STATION_MAX,
    "ChargingStationExternalConstraints": Purpose.EXTERNAL,
    "TxDefaultProfile": Purpose.DEFAULT,
    "TxProfile": Purpose.TRANSACTION,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A profile as a station keeps it. ``number`` 0: for every connector or EVSE.

    ``periods``: seconds after the start, limit in ``unit``, phases. ``start`` None: Relative, from
    the transaction's start on. ``cycle``: the start comes again.
    """

    id: int
    number: int
    purpose: Purpose
    level: int
    unit: str
    periods: tuple[tuple[int, float, int], ...]
    start: datetime | None = None
    duration_s: int | None = None
    cycle: timedelta | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    transaction: str | None = None

    def value(self, at: datetime, began: datetime | None) -> tuple[float, int] | None:
        """Limit and phases at ``at``; None where the profile says nothing. ``began``: the transaction."""
        if (self.valid_from and at < self.valid_from) or (self.valid_to and at >= self.valid_to):
            return None
        start = self.start or began
        if start is None or at < start:
            return None
        passed = at - start
        if self.cycle is not None:
            passed %= self.cycle
        seconds = passed.total_seconds()
        if self.duration_s is not None and seconds >= self.duration_s:
            return None
        found = [(limit, phases) for offset, limit, phases in self.periods if offset <= seconds]
        return found[-1] if found else None

    def edges(self, began: datetime | None, since: datetime, until: datetime) -> Iterator[datetime]:
        """Instants between ``since`` and ``until`` at which the value may change."""
        yield from (instant for instant in (self.valid_from, self.valid_to) if instant is not None)
        start = self.start or began
        if start is None:
            return
        offsets = [offset for offset, _, _ in self.periods]
        offsets += [] if self.duration_s is None else [self.duration_s]
        if self.cycle is None:
            yield from (start + timedelta(seconds=offset) for offset in offsets)
            return
        first = max(0, (since - start) // self.cycle)
        for turn in range(first, max(first, (until - start) // self.cycle) + 1):
            again = start + turn * self.cycle
            yield from (again + timedelta(seconds=offset) for offset in (0, *offsets))


@dataclass(frozen=True, slots=True)
class Piece:
    """From ``offset_s`` on ``limit`` holds; None: nothing limits."""

    offset_s: int
    limit: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked about: ``duration_s`` from ``start`` on in ``unit`` (``A`` per phase, or ``W``)."""

    start: datetime
    duration_s: int
    unit: str
    voltage_v: float = 230.0

    @property
    def end(self) -> datetime:
        """First instant that is not asked about."""
        return self.start + timedelta(seconds=self.duration_s)

    def convert(self, limit: float, unit: str, phases: int) -> float:
        """``limit`` in the unit of the window, at nominal voltage."""
        if unit == self.unit:
            return limit
        factor = self.voltage_v * phases
        return limit * factor if self.unit == "W" else limit / factor


def composite(
    profiles: Iterable[Held],
    number: int,
    window: Window,
    *,
    transaction: str | None = None,
    began: datetime | None = None,
) -> tuple[Piece, ...]:
    """What a station with these profiles allows on connector (2.x: EVSE) ``number`` above 0.

    ``transaction`` and ``began``: the one that runs there; without one, transaction profiles say
    nothing.
    """
    held = [p for p in profiles if p.number in (0, number) and _concerns(p, transaction)]
    edges = {window.start}
    for profile in held:
        edges |= {e for e in profile.edges(began, window.start, window.end) if window.start < e < window.end}
    pieces: list[Piece] = []
    for edge in sorted(edges):
        limit = _lowest(held, number, edge, window, began)
        # Whole seconds; what falls within one falls at its beginning.
        offset = int((edge - window.start).total_seconds())
        if not pieces or limit != pieces[-1].limit:
            pieces.append(Piece(offset, limit))
    return tuple(pieces)


def at(pieces: Sequence[Piece], offset_s: float) -> float | None:
    """The limit at an instant; before the first piece nothing limits."""
    found: float | None = None
    for piece in pieces:
        if piece.offset_s > offset_s:
            break
        found = piece.limit
    return found


def highest(schedules: Sequence[Sequence[Piece]]) -> tuple[Piece, ...]:
    """The loosest of several at every instant: what is allowed when any of them may be installed."""
    pieces: list[Piece] = []
    for offset in sorted({piece.offset_s for pieces in schedules for piece in pieces}):
        values = [at(schedule, offset) for schedule in schedules]
        known = [value for value in values if value is not None]
        limit = max(known) if len(known) == len(values) else None
        if not pieces or limit != pieces[-1].limit:
            pieces.append(Piece(offset, limit))
    return tuple(pieces)


@dataclass(frozen=True, slots=True)
class Reported:
    """A station's answer, read leniently. ``end_s``: seconds after the window's start it speaks of."""

    pieces: tuple[Piece, ...]
    end_s: int
    converted: bool


@dataclass(frozen=True, slots=True)
class Excess:
    """The first instant at which a station allows more than it should."""

    offset_s: int
    allowed: float
    reported: float


def excess(reported: Reported, expected: Sequence[Piece], window: Window) -> Excess | None:
    """Where the station's schedule lies above ``expected``, edges within :data:`SLACK_S` forgiven.

    What it allows less is its own business (its hardware, somebody else's limit).
    """
    tolerance = TOLERANCE_A if window.unit == "A" else TOLERANCE_W
    edges = [p.offset_s for p in expected]
    probes = {0, *(p.offset_s for p in reported.pieces), *edges, *(edge + SLACK_S for edge in edges)}
    for offset in sorted(o for o in probes if 0 <= o < min(reported.end_s, window.duration_s)):
        said = at(reported.pieces, offset)
        nearby = [offset - SLACK_S, offset, offset + SLACK_S]
        nearby += [edge for edge in edges if abs(edge - offset) <= SLACK_S]
        allowed = [at(expected, max(0, instant)) for instant in nearby]
        known = [value for value in allowed if value is not None]
        if said is None or len(known) < len(allowed):
            continue
        bound = max(known)
        if said > bound + tolerance + (bound * 0.01 if reported.converted else 0.0):
            return Excess(offset, bound, said)
    return None


def ask_composite(version: Version, number: int, duration_s: int, unit: str) -> bytes:
    """Payload of GetCompositeSchedule."""
    word: Literal["A", "W"] = "A" if unit == "A" else "W"
    if version is Version.V16:
        return encode(
            v16.GetCompositeScheduleRequest(connector_id=number, duration=duration_s, charging_rate_unit=word)
        )
    return encode(v201.GetCompositeScheduleRequest(evse_id=number, duration=duration_s, charging_rate_unit=word))


def read_composite(version: Version, payload: bytes, window: Window) -> Reported | None:
    """A station's schedule; None where it gives none.

    Deviations that are met in the field are read over: a duration longer than asked, a start inside
    the schedule, the other unit (fact sheet, quirks).
    """
    try:
        message = response_decoder(version, "GetCompositeSchedule").decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(message, v16.GetCompositeScheduleResponse):
        schedule = message.charging_schedule
        if message.status != "Accepted" or schedule is None:
            return None
        begins = schedule.start_schedule or message.schedule_start
        return _reported(begins, schedule.duration, schedule.charging_rate_unit, _periods(schedule), window)
    if isinstance(message, v201.GetCompositeScheduleResponse):
        composed = message.schedule
        if message.status != "Accepted" or composed is None:
            return None
        return _reported(
            composed.schedule_start, composed.duration, composed.charging_rate_unit, _periods(composed), window
        )
    return None


def held_by(version: Version, payload: bytes) -> Held | None:
    """The profile that a SetChargingProfile of ours installs."""
    message = request_decoder(version, "SetChargingProfile").decode(payload)
    if isinstance(message, v16.SetChargingProfileRequest):
        profile = message.cs_charging_profiles
        transaction = None if profile.transaction_id is None else str(profile.transaction_id)
        number = profile.charging_profile_id
        return _held(number, message.connector_id, profile, profile.charging_schedule, transaction)
    if isinstance(message, v201.SetChargingProfileRequest):
        return held_201(message.charging_profile, message.evse_id)
    return None


def held_201(profile: v201.ChargingProfileType, number: int) -> Held | None:
    """A profile of 2.0.1, as sent or as reported. Its first schedule counts."""
    return _held(profile.id, number, profile, profile.charging_schedule[0], profile.transaction_id)


def _held(
    identity: int,
    number: int,
    profile: v16.CsChargingProfiles | v201.ChargingProfileType,
    schedule: v16.ChargingSchedule | v201.ChargingScheduleType,
    transaction: str | None,
) -> Held | None:
    purpose = _PURPOSES.get(profile.charging_profile_purpose)
    if purpose is None:
        return None
    relative = profile.charging_profile_kind == "Relative"
    start = None if relative or schedule.start_schedule is None else _instant(schedule.start_schedule)
    return Held(
        identity,
        number,
        purpose,
        profile.stack_level,
        schedule.charging_rate_unit,
        _periods(schedule),
        start,
        schedule.duration,
        _CYCLES.get(profile.recurrency_kind or "") if profile.charging_profile_kind == "Recurring" else None,
        None if profile.valid_from is None else _instant(profile.valid_from),
        None if profile.valid_to is None else _instant(profile.valid_to),
        transaction,
    )


def _instant(text: str) -> datetime:
    """A time inside a profile; one that is none counts as having always begun."""
    return read_instant(text, _ALWAYS)[0]


def _periods(
    schedule: v16.ChargingSchedule | v201.ChargingScheduleType | v201.CompositeScheduleType,
) -> tuple[tuple[int, float, int], ...]:
    return tuple(
        (p.start_period, p.limit, p.number_phases or 3) for p in schedule.charging_schedule_period[:MAX_PIECES]
    )


def _reported(
    begins: str | None,
    duration_s: int | None,
    unit: str,
    periods: tuple[tuple[int, float, int], ...],
    window: Window,
) -> Reported | None:
    if not periods:
        return None
    start = window.start if begins is None else read_instant(begins, window.start)[0]
    shift = round((start - window.start).total_seconds())
    pieces = tuple(Piece(shift + offset, window.convert(limit, unit, phases)) for offset, limit, phases in periods)
    end = window.duration_s if duration_s is None else shift + duration_s
    return Reported(pieces, end, unit != window.unit)


def _concerns(profile: Held, transaction: str | None) -> bool:
    if profile.purpose is not Purpose.TRANSACTION:
        return True
    return transaction is not None and profile.transaction in (None, transaction)


def _lowest(
    held: Sequence[Held], number: int, instant: datetime, window: Window, began: datetime | None
) -> float | None:
    ceilings = [
        _chosen(held, purpose, {0, number}, instant, began) for purpose in (Purpose.EXTERNAL, Purpose.STATION_MAX)
    ]
    own = _chosen(held, Purpose.TRANSACTION, {number}, instant, began)
    if own is None:
        # A default for one connector takes the place of the one for all (1.6 §3.13.1).
        own = _chosen(held, Purpose.DEFAULT, {number}, instant, began) or _chosen(
            held, Purpose.DEFAULT, {0}, instant, began
        )
    known = [window.convert(*value) for value in (*ceilings, own) if value is not None]
    return min(known, default=None)


def _chosen(
    held: Sequence[Held], purpose: Purpose, numbers: set[int], instant: datetime, began: datetime | None
) -> tuple[float, str, int] | None:
    best: tuple[int, tuple[float, str, int]] | None = None
    for profile in held:
        if profile.purpose is purpose and profile.number in numbers:
            value = profile.value(instant, began)
            if value is not None and (best is None or profile.level > best[0]):
                best = (profile.level, (value[0], profile.unit, value[1]))
    return None if best is None else best[1]
