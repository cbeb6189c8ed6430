"""Commands to charging profiles: the profile plan. Pure.

Two profiles per EVSE, each with an id of its own that never changes, so that an update replaces
(OCPP 1.6 §3.13.2, 2.0.1 K01): the permanent share as TxDefaultProfile, the running session's
schedule as TxProfile above it. Neither has ``duration`` or ``validTo``: a station that read "the
transaction's profile overrules the default" would know no limit once the upper one had ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from adapters.ocpp.wire import Version, encode, v16, v201
from gateway.domain.calendar import WHOLE
from gateway.domain.effects import Command, Layer
from gateway.domain.errors import LocalError
from gateway.domain.quantities import HIGHEST_PLAUSIBLE_VOLTAGE, Volts, Watts, current_limit_a
from gateway.domain.schedule import Schedule, Step
from gateway.domain.timeline import rfc3339
from gateway.ports.fleet import EvseBinding

FIRST_PROFILE_ID = 900_000
"""Ids from here on are ours; a station's other profiles keep below or far above."""

START_BEFORE = timedelta(seconds=60)
"""Schedules begin this long ago, so that a station whose clock is behind obeys at once."""

MAX_BACK = timedelta(days=1)
"""Nothing earlier than this matters, and offsets stay small."""


@dataclass(frozen=True, slots=True)
class Capability:
    """What a station can hold. Defaults suit one that says nothing: the safe assumption.

    ``periods``: periods per schedule; ``max_level``: highest stack level; ``unit``: ``A`` or ``W``;
    ``kind``: ``Absolute``, or ``Relative`` for one that takes nothing else: then with one period,
    the lowest, which holds whenever the transaction began.
    """

    periods: int = 1
    max_level: int = 1
    unit: str = "A"
    kind: str = "Absolute"


@dataclass(frozen=True, slots=True)
class Period:
    """``limit`` (A per phase, or W in total) from ``offset_s`` after the schedule's start on."""

    offset_s: int
    limit: float


def safe_share_id(number: int) -> int:
    """Id of the default profile of EVSE (1.6: connector) ``number``."""
    return FIRST_PROFILE_ID + 2 * number


def session_id(number: int) -> int:
    """Id of the transaction profile of EVSE (1.6: connector) ``number``."""
    return FIRST_PROFILE_ID + 2 * number + 1


def set_profile(
    version: Version, command: Command, binding: EvseBinding, capability: Capability, now: datetime
) -> bytes:
    """Payload of SetChargingProfile. ``now`` by the station's clock, where that is behind ours.

    What has one period began a day ago: it holds at once also where the clock is further behind.

    Raises:
        LocalError: a session command without a transaction that the version can name.
    """
    phases = _phases(command, binding)
    starts_at = _start(command.schedule, now)
    steps = collapse(_offsets(command.schedule, starts_at), _periods(command, capability))
    if len(steps) == 1:
        starts_at = (now - MAX_BACK).replace(microsecond=0)
    periods = [Period(offset, _limit(Watts(watts), binding, phases, capability.unit)) for offset, watts in steps]
    if version is Version.V16:
        return encode(_profile_16(command, binding, capability, rfc3339(starts_at), phases, periods))
    return encode(_profile_201(command, binding, capability, rfc3339(starts_at), phases, periods))


def clear_profile(version: Version, profile_id: int) -> bytes:
    """Payload of ClearChargingProfile for one of our ids."""
    if version is Version.V16:
        return encode(v16.ClearChargingProfileRequest(id=profile_id))
    return encode(v201.ClearChargingProfileRequest(charging_profile_id=profile_id))


def limit_a(limit_w: Watts, binding: EvseBinding, phases: int) -> float:
    """Current per phase that keeps ``limit_w`` up to the highest plausible voltage, or 0.

    Between 0 and the least current that charges nothing exists (IEC 61851-1): 0 it is.
    """
    voltage = Volts(round(binding.voltage_v * HIGHEST_PLAUSIBLE_VOLTAGE, 3))
    amperes = min(float(current_limit_a(max(limit_w, Watts(0)), voltage, phases)), binding.max_ma // 100 / 10)
    return amperes if amperes * 1000 >= binding.min_ma else 0.0


def collapse(steps: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most ``most`` steps, none higher than before at any instant.

    Neighbours become their minimum; the pair that loses the least energy goes first, and a last
    step, which never ends, is raised by nobody.
    """
    kept = list(steps)
    while len(kept) > max(most, 1):
        losses = [_loss(kept, index) for index in range(len(kept) - 1)]
        index = losses.index(min(losses))
        kept[index : index + 2] = [(kept[index][0], min(kept[index][1], kept[index + 1][1]))]
    return kept


def _loss(steps: Sequence[tuple[int, int]], index: int) -> float:
    (start, first), (middle, second) = steps[index], steps[index + 1]
    if first >= second:
        return float((first - second) * (middle - start))
    if index + 2 == len(steps):
        return float("inf")
    return float((second - first) * (steps[index + 2][0] - middle))


def _periods(command: Command, capability: Capability) -> int:
    return 1 if _is_share(command) or capability.kind == "Relative" else capability.periods


def _is_share(command: Command) -> bool:
    return command.layer is Layer.SAFE_SHARE


def _phases(command: Command, binding: EvseBinding) -> int:
    installed = len(binding.phases)
    return min(command.phases, installed) if command.phases else installed


def _start(schedule: Schedule, now: datetime) -> datetime:
    earliest = min(schedule.steps[0].start, now - START_BEFORE)
    return max(earliest, now - MAX_BACK).replace(microsecond=0)


def _offsets(schedule: Schedule, starts_at: datetime) -> list[tuple[int, int]]:
    """Steps as whole seconds after ``starts_at``: falls early, rises late."""
    out: list[tuple[int, int]] = [(0, schedule.at(starts_at))]
    for step in schedule.steps[1:]:
        if step.start <= starts_at:
            continue
        offset = _whole_seconds(step, starts_at, falling=step.limit_w < out[-1][1])
        if offset <= out[-1][0]:
            out[-1] = (out[-1][0], min(out[-1][1], step.limit_w))
        else:
            out.append((offset, step.limit_w))
    return out


def _whole_seconds(step: Step, starts_at: datetime, *, falling: bool) -> int:
    seconds, rest = divmod(step.start - starts_at, timedelta(seconds=1))
    return seconds if falling or not rest else seconds + 1


def _limit(limit_w: Watts, binding: EvseBinding, phases: int, unit: str) -> float:
    if unit == "A":
        return limit_a(limit_w, binding, phases)
    return float(max(limit_w, 0) * binding.efficiency // WHOLE)


def _profile_16(
    command: Command,
    binding: EvseBinding,
    capability: Capability,
    starts_at: str,
    phases: int,
    periods: Sequence[Period],
) -> msgspec.Struct:
    share = _is_share(command)
    transaction = None if share else _number(command)
    return v16.SetChargingProfileRequest(
        connector_id=binding.number,
        cs_charging_profiles=v16.CsChargingProfiles(
            charging_profile_id=safe_share_id(binding.number) if share else session_id(binding.number),
            transaction_id=transaction,
            stack_level=0 if share else min(1, capability.max_level),
            charging_profile_purpose="TxDefaultProfile" if share else "TxProfile",
            charging_profile_kind="Relative" if capability.kind == "Relative" else "Absolute",
            charging_schedule=v16.ChargingSchedule(
                start_schedule=None if capability.kind == "Relative" else starts_at,
                charging_rate_unit="A" if capability.unit == "A" else "W",
                charging_schedule_period=tuple(
                    v16.ChargingSchedulePeriod(start_period=p.offset_s, limit=p.limit, number_phases=phases)
                    for p in periods
                ),
            ),
        ),
    )


def _profile_201(
    command: Command,
    binding: EvseBinding,
    capability: Capability,
    starts_at: str,
    phases: int,
    periods: Sequence[Period],
) -> msgspec.Struct:
    share = _is_share(command)
    if not share and not command.transaction:
        raise LocalError(f"command {command.id} names no transaction")
    number = safe_share_id(binding.number) if share else session_id(binding.number)
    return v201.SetChargingProfileRequest(
        evse_id=binding.number,
        charging_profile=v201.ChargingProfileType(
            id=number,
            stack_level=0 if share else min(1, capability.max_level),
            charging_profile_purpose="TxDefaultProfile" if share else "TxProfile",
            charging_profile_kind="Relative" if capability.kind == "Relative" else "Absolute",
            transaction_id=None if share else command.transaction,
            charging_schedule=(
                v201.ChargingScheduleType(
                    id=number,
                    start_schedule=None if capability.kind == "Relative" else starts_at,
                    charging_rate_unit="A" if capability.unit == "A" else "W",
                    charging_schedule_period=tuple(
                        v201.ChargingSchedulePeriodType(start_period=p.offset_s, limit=p.limit, number_phases=phases)
                        for p in periods
                    ),
                ),
            ),
        ),
    )


def _number(command: Command) -> int:
    text = command.transaction or ""
    if not text.isdecimal():
        raise LocalError(f"command {command.id} names no transaction of OCPP 1.6")
    return int(text)
