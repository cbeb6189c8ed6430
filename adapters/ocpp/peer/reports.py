"""What the simulated station says that it holds: its composite schedule and its profiles. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from adapters.ocpp.peer.outlet import Outlet
from adapters.ocpp.peer.profiles import DEFAULT, STATION_MAX, TRANSACTION, Profile
from adapters.ocpp.wire import Version, encode, v16, v201
from gateway.domain.timeline import rfc3339

_WORDS: dict[str, Literal["ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile"]] = {
    STATION_MAX: "ChargingStationMaxProfile",
    DEFAULT: "TxDefaultProfile",
    TRANSACTION: "TxProfile",
}


def composite(version: Version, outlet: Outlet, now: datetime, duration_s: int, unit: str | None) -> bytes:
    """The answer to GetCompositeSchedule. A station that ignores its limits does not say so here."""
    end = now + timedelta(seconds=duration_s)
    edges = [now, *sorted({edge for edge in outlet.store.edges() if now < edge < end})]
    factor = outlet.voltage_v * outlet.phases if unit == "W" else 1.0
    steps = [(int((edge - now).total_seconds()), outlet.obeyed_a(edge) * factor) for edge in edges]
    word: Literal["A", "W"] = "W" if unit == "W" else "A"
    if version is Version.V16:
        return encode(
            v16.GetCompositeScheduleResponse(
                status="Accepted",
                connector_id=outlet.number,
                schedule_start=rfc3339(now),
                charging_schedule=v16.ChargingSchedule(
                    duration=duration_s,
                    charging_rate_unit=word,
                    charging_schedule_period=tuple(
                        v16.ChargingSchedulePeriod(
                            start_period=offset, limit=round(limit, 1), number_phases=outlet.phases
                        )
                        for offset, limit in steps
                    ),
                ),
            )
        )
    return encode(
        v201.GetCompositeScheduleResponse(
            status="Accepted",
            schedule=v201.CompositeScheduleType(
                evse_id=outlet.number,
                duration=duration_s,
                schedule_start=rfc3339(now),
                charging_rate_unit=word,
                charging_schedule_period=tuple(
                    v201.ChargingSchedulePeriodType(
                        start_period=offset, limit=round(limit, 1), number_phases=outlet.phases
                    )
                    for offset, limit in steps
                ),
            ),
        )
    )


def matching(profiles: Iterable[Profile], request: v201.GetChargingProfilesRequest) -> list[Profile]:
    """K09: the profiles that a request asks for."""
    wanted = request.charging_profile
    return [
        profile
        for profile in profiles
        if request.evse_id in (None, profile.outlet)
        and wanted.charging_profile_purpose in (None, _WORDS[profile.purpose])
        and wanted.stack_level in (None, profile.level)
        and (wanted.charging_profile_id is None or profile.id in wanted.charging_profile_id)
    ]


def report(request_id: int, profile: Profile, *, more: bool) -> bytes:
    """One ReportChargingProfiles."""
    return encode(
        v201.ReportChargingProfilesRequest(
            request_id=request_id,
            charging_limit_source="CSO",
            evse_id=profile.outlet,
            tbc=True if more else None,
            charging_profile=(
                v201.ChargingProfileType(
                    id=profile.id,
                    stack_level=profile.level,
                    charging_profile_purpose=_WORDS[profile.purpose],
                    charging_profile_kind="Absolute",
                    transaction_id=profile.transaction,
                    charging_schedule=(
                        v201.ChargingScheduleType(
                            id=profile.id,
                            start_schedule=rfc3339(profile.start),
                            duration=profile.duration_s,
                            charging_rate_unit="W" if profile.unit == "W" else "A",
                            charging_schedule_period=tuple(
                                v201.ChargingSchedulePeriodType(start_period=offset, limit=limit, number_phases=phases)
                                for offset, limit, phases in profile.periods
                            ),
                        ),
                    ),
                ),
            ),
        )
    )
