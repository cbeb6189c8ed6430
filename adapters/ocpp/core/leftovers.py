"""Profiles at a station that are not ours, or not ours any more, and how they are taken away. No I/O.

A profile of the same purpose on a higher stack level overrules ours, also upwards (OCPP 1.6
§3.13.2), so one that allows more is cleared. Maxima and external constraints only tighten: they
stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from adapters.ocpp.core.setup import CLEAR, HOUSEKEEPING
from adapters.ocpp.session import Request
from adapters.ocpp.translate.composite import Held, Purpose, held_201
from adapters.ocpp.translate.profile import clear_profile, safe_share_id, session_id
from adapters.ocpp.wire import Version, encode, v16, v201
from gateway.ports.fleet import EvseBinding

READ = "profiles"

SWEPT = "swept"
"""Tag of the last CALL of a sweep."""

_Overruling: TypeAlias = Literal["TxDefaultProfile", "TxProfile"]
_OVERRULING: tuple[_Overruling, ...] = ("TxDefaultProfile", "TxProfile")

MAX_SWEPT_LEVEL = 8
"""Stack levels that are swept; a station with more of them is asked for its profiles one by one."""

MAX_CLEARED = 32
"""Profiles cleared on one connection: more than any station keeps."""


def read_profiles(generation: int) -> list[Request]:
    """Have a 2.0.1 station report what it holds that may overrule us (K09)."""
    return [
        Request(
            f"{READ}/{purpose}",
            "GetChargingProfiles",
            encode(
                v201.GetChargingProfilesRequest(
                    request_id=request_id(generation, index),
                    charging_profile=v201.ChargingProfileCriterionType(charging_profile_purpose=purpose),
                )
            ),
            HOUSEKEEPING,
        )
        for index, purpose in enumerate(_OVERRULING)
    ]


def request_id(generation: int, index: int) -> int:
    """Tells the reports of one connection from those of another."""
    return (generation % 1_000_000) * 10 + index


def foreign(
    report: v201.ReportChargingProfilesRequest,
    bindings: Iterable[EvseBinding],
    share_of: Callable[[int], Held | None],
) -> list[Held]:
    """Profiles in a report that are not ours and may allow more than the share."""
    numbers = [binding.number for binding in bindings]
    ours = {(number, make(number)) for number in numbers for make in (safe_share_id, session_id)}
    found = []
    for profile in report.charging_profile:
        held = held_201(profile, report.evse_id)
        if held is None or (held.number, held.id) in ours or not _overrules(held):
            continue
        concerned = numbers if held.number == 0 else [held.number]
        if not all(_is_tighter(held, share_of(number)) for number in concerned):
            found.append(held)
    return found


def sweep(version: Version, max_level: int) -> list[Request]:
    """Clear every level but our own of the purposes that can overrule us.

    For 1.6, which cannot be asked what it holds. Ours stay where they are, so that there is no
    instant without a limit.
    """
    highest = min(max_level, MAX_SWEPT_LEVEL)
    own = {"TxDefaultProfile": 0, "TxProfile": min(1, max_level)}
    places = [(purpose, level) for purpose in _OVERRULING for level in range(highest + 1) if level != own[purpose]]
    return [
        Request(
            SWEPT if place == places[-1] else CLEAR,
            "ClearChargingProfile",
            _clear_level(version, *place),
            HOUSEKEEPING,
        )
        for place in places
    ]


def clear(version: Version, held: Held) -> Request:
    """Take one profile away by its id."""
    return Request(CLEAR, "ClearChargingProfile", clear_profile(version, held.id), HOUSEKEEPING)


def _overrules(held: Held) -> bool:
    return held.purpose in (Purpose.DEFAULT, Purpose.TRANSACTION)


def _is_tighter(held: Held, share: Held | None) -> bool:
    """Whether it allows no more than the share at any instant at which it has a value."""
    if share is None or held.unit != share.unit:
        return False
    return max(limit for _, limit, _ in held.periods) <= min(limit for _, limit, _ in share.periods)


def _clear_level(version: Version, purpose: _Overruling, level: int) -> bytes:
    if version is Version.V16:
        return encode(v16.ClearChargingProfileRequest(charging_profile_purpose=purpose, stack_level=level))
    criteria = v201.ClearChargingProfileType(charging_profile_purpose=purpose, stack_level=level)
    return encode(v201.ClearChargingProfileRequest(charging_profile_criteria=criteria))
