"""What a conforming station does with charging profiles. Pure; knows nothing of the sender's plan.

Within one purpose the highest stack level with a value now wins; a transaction's profile replaces
the default for the instants at which it has a value; the station's maximum caps both
(OCPP 1.6 §3.13, 2.0.1 K01).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from adapters.ocpp.translate.instant import read_instant
from adapters.ocpp.wire import v16, v201

MAX_LEVEL = 8
MAX_PERIODS = 24

STATION_MAX, DEFAULT, TRANSACTION = "max", "default", "transaction"

PURPOSES = {
    "ChargePointMaxProfile": STATION_MAX,
    "ChargingStationMaxProfile": STATION_MAX,
    "TxDefaultProfile": DEFAULT,
    "TxProfile": TRANSACTION,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as installed. ``periods``: (offset in s, limit in ``unit``, phases)."""

    id: int
    outlet: int
    purpose: str
    level: int
    transaction: str | None
    start: datetime
    unit: str
    periods: tuple[tuple[int, float, int], ...]
    duration_s: int | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    def at(self, now: datetime) -> tuple[float, int] | None:
        """Limit and phases in force, None where the profile says nothing."""
        if (self.valid_from and now < self.valid_from) or (self.valid_to and now >= self.valid_to):
            return None
        passed = (now - self.start).total_seconds()
        if passed < 0 or (self.duration_s is not None and passed >= self.duration_s):
            return None
        found = None
        for offset, limit, phases in self.periods:
            if offset > passed:
                break
            found = (limit, phases)
        return found

    def edges(self) -> Iterator[datetime]:
        """Every instant at which the value may change."""
        for offset, _, _ in self.periods:
            yield self.start + timedelta(seconds=offset)
        if self.duration_s is not None:
            yield self.start + timedelta(seconds=self.duration_s)
        for instant in (self.valid_from, self.valid_to):
            if instant is not None:
                yield instant


class ProfileStore:
    """All profiles of a station. They survive disconnections and reboots; 2.x may refuse more."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._held: dict[int, Profile] = {}

    @property
    def held(self) -> tuple[Profile, ...]:
        """What is installed."""
        return tuple(self._held.values())

    def install(self, profile: Profile, running: str | None) -> str:
        """Empty when installed, else the reason code of the refusal.

        ``running``: the transaction on the outlet that the profile is for.
        """
        if profile.level > MAX_LEVEL or profile.level < 0:
            return "InvalidStackLevel"
        if not profile.periods or len(profile.periods) > MAX_PERIODS or profile.periods[0][0] != 0:
            return "InvalidSchedule"
        if profile.purpose == TRANSACTION and (running is None or profile.transaction not in (None, running)):
            return "TxNotFound"
        same_place = [
            other.id
            for other in self._held.values()
            if (other.purpose, other.level, other.outlet) == (profile.purpose, profile.level, profile.outlet)
        ]
        if self._strict and any(other != profile.id for other in same_place):
            return "DuplicateProfile"
        for other in (*same_place, profile.id):
            self._held.pop(other, None)
        self._held[profile.id] = profile
        return ""

    def clear(self, profile_id: int | None) -> bool:
        """Remove one, or all; whether there was any."""
        if profile_id is None:
            found, self._held = bool(self._held), {}
            return found
        return self._held.pop(profile_id, None) is not None

    def clear_matching(self, purpose: str | None, level: int | None, outlet: int | None) -> bool:
        """Remove what fits all that is given; whether there was any."""
        fitting = {
            p.id
            for p in self._held.values()
            if purpose in (None, p.purpose) and level in (None, p.level) and outlet in (None, p.outlet)
        }
        self._held = {key: p for key, p in self._held.items() if key not in fitting}
        return bool(fitting)

    def transaction_ended(self, outlet: int) -> None:
        """A transaction's profiles die with it."""
        self._held = {key: p for key, p in self._held.items() if not (p.purpose == TRANSACTION and p.outlet == outlet)}

    def limit_a(self, outlet: int, now: datetime, *, charging: bool, voltage_v: float, phases: int) -> float | None:
        """Current per phase allowed on an outlet; None where nothing limits it."""
        upper = self._value(STATION_MAX, 0, now, voltage_v, phases)
        own = self._value(TRANSACTION, outlet, now, voltage_v, phases) if charging else None
        if own is None:
            own = self._value(DEFAULT, outlet, now, voltage_v, phases)
        if own is None:
            own = self._value(DEFAULT, 0, now, voltage_v, phases)
        known = [value for value in (upper, own) if value is not None]
        return min(known, default=None)

    def edges(self) -> Iterator[datetime]:
        """Every instant at which a limit may change."""
        for profile in self._held.values():
            yield from profile.edges()

    def _value(self, purpose: str, outlet: int, now: datetime, voltage_v: float, phases: int) -> float | None:
        best: tuple[int, float] | None = None
        for profile in self._held.values():
            if profile.purpose != purpose or profile.outlet != outlet:
                continue
            value = profile.at(now)
            if value is not None and (best is None or profile.level > best[0]):
                # A watt limit may be drawn on as many phases as the car uses.
                amperes = value[0] if profile.unit == "A" else value[0] / (voltage_v * phases)
                best = (profile.level, amperes)
        return None if best is None else best[1]


def read_profile(message: msgspec.Struct, received_at: datetime) -> Profile | None:
    """A profile out of SetChargingProfile of either version; None for a kind we do not hold."""
    if isinstance(message, v16.SetChargingProfileRequest):
        body = message.cs_charging_profiles
        schedule = body.charging_schedule
        number, outlet = body.charging_profile_id, message.connector_id
        transaction = None if body.transaction_id is None else str(body.transaction_id)
        periods = tuple((p.start_period, p.limit, p.number_phases or 3) for p in schedule.charging_schedule_period)
    elif isinstance(message, v201.SetChargingProfileRequest):
        profile = message.charging_profile
        first = profile.charging_schedule[0]
        return _profile(
            profile.id,
            message.evse_id,
            profile,
            first,
            profile.transaction_id,
            tuple((p.start_period, p.limit, p.number_phases or 3) for p in first.charging_schedule_period),
            received_at,
        )
    else:
        return None
    return _profile(number, outlet, body, schedule, transaction, periods, received_at)


def _profile(
    number: int,
    outlet: int,
    body: v16.CsChargingProfiles | v201.ChargingProfileType,
    schedule: v16.ChargingSchedule | v201.ChargingScheduleType,
    transaction: str | None,
    periods: tuple[tuple[int, float, int], ...],
    received_at: datetime,
) -> Profile | None:
    purpose = PURPOSES.get(body.charging_profile_purpose)
    if purpose is None or body.charging_profile_kind != "Absolute" or schedule.start_schedule is None:
        return None
    return Profile(
        number,
        outlet,
        purpose,
        body.stack_level,
        transaction,
        read_instant(schedule.start_schedule, received_at)[0],
        schedule.charging_rate_unit,
        periods,
        schedule.duration,
        None if body.valid_from is None else read_instant(body.valid_from, received_at)[0],
        None if body.valid_to is None else read_instant(body.valid_to, received_at)[0],
    )
