"""The profile plan: what a station is told never allows more than the allocation."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.peer.profiles import read_profile
from adapters.ocpp.translate.profile import Capability, collapse, limit_a, set_profile
from adapters.ocpp.wire import Version, request_decoder
from gateway.domain.effects import Layer
from gateway.domain.errors import LocalError
from gateway.domain.quantities import Watts
from gateway.domain.schedule import Schedule, Step, constant
from tests.support.ocpp import T0, a_binding, a_command, falling

V16, V201 = Version.V16, Version.V201
RICH = Capability(periods=24, max_level=8, unit="A")
IN_WATTS = Capability(periods=24, max_level=8, unit="W")


def a_profile(version: Version = V16, capability: Capability = RICH, **command: object) -> dict:
    payload = set_profile(version, a_command(**command), a_binding(), capability, T0)
    request_decoder(version, "SetChargingProfile").decode(payload)
    return json.loads(payload)


def test_the_safe_share_is_a_default_profile_without_an_end():
    profile = a_profile(limit_w=5_000)["csChargingProfiles"]
    assert profile == {
        "chargingProfileId": 900_002,
        "stackLevel": 0,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "startSchedule": "2031-02-28T17:00:00Z",
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6.5, "numberPhases": 3}],
        },
    }


def test_a_sessions_schedule_is_a_transaction_profile_above_the_share():
    schedule = falling(T0, (0, 11_000), (900, 5_000))
    message = a_profile(layer=Layer.SESSION, transaction="77", schedule=schedule)
    profile = message["csChargingProfiles"]
    assert (message["connectorId"], profile["chargingProfileId"], profile["stackLevel"]) == (1, 900_003, 1)
    assert (profile["chargingProfilePurpose"], profile["transactionId"]) == ("TxProfile", 77)
    assert profile["chargingSchedule"]["startSchedule"] == "2031-03-01T16:59:00Z"
    assert [(p["startPeriod"], p["limit"]) for p in profile["chargingSchedule"]["chargingSchedulePeriod"]] == [
        (0, 14.4),
        (960, 6.5),
    ]


def test_in_201_the_schedule_is_a_list_of_one_with_an_id():
    message = a_profile(V201, layer=Layer.SESSION, transaction="tx-1", limit_w=8_000)
    profile = message["chargingProfile"]
    assert (message["evseId"], profile["id"], profile["transactionId"]) == (1, 900_003, "tx-1")
    assert [s["id"] for s in profile["chargingSchedule"]] == [900_003]


@pytest.mark.parametrize("version", Version)
def test_no_profile_ends_by_itself(version: Version):
    text = json.dumps(a_profile(version, layer=Layer.SESSION, transaction="7"))
    assert "duration" not in text
    assert "validTo" not in text
    assert "validFrom" not in text


@pytest.mark.parametrize(("version", "transaction"), [(V16, None), (V16, "abc"), (V201, None), (V201, "")])
def test_a_session_command_must_name_its_transaction(version: Version, transaction: str | None):
    with pytest.raises(LocalError, match="names no transaction"):
        a_profile(version, layer=Layer.SESSION, transaction=transaction)


def test_a_station_with_one_level_gets_both_profiles_on_it():
    profile = a_profile(capability=Capability(max_level=0), layer=Layer.SESSION, transaction="7")
    assert profile["csChargingProfiles"]["stackLevel"] == 0


def test_a_station_that_keeps_one_period_gets_the_lowest_value():
    schedule = falling(T0, (0, 11_000), (900, 5_000))
    profile = a_profile(capability=Capability(), layer=Layer.SESSION, transaction="7", schedule=schedule)
    assert [p["limit"] for p in profile["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"]] == [6.5]


def test_watts_are_sent_as_they_are():
    periods = a_profile(capability=IN_WATTS, limit_w=3_999)["csChargingProfiles"]["chargingSchedule"]
    assert periods["chargingRateUnit"] == "W"
    assert periods["chargingSchedulePeriod"][0]["limit"] == 3_999


@given(st.integers(-100, 50_000), st.integers(1, 3), st.floats(0.9, 1.1))
def test_a_current_never_allows_more_than_the_watts_at_any_plausible_voltage(watts: int, phases: int, factor: float):
    amperes = limit_a(Watts(watts), a_binding(phases=phases), phases)
    assert amperes * 230.0 * factor * phases <= max(watts, 0) + 1e-6
    assert amperes == 0 or 6.0 <= amperes <= 32.0
    assert round(amperes * 10) == pytest.approx(amperes * 10)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    starts = sorted(draw(st.sets(st.integers(-90_000_000, 7_200_000), min_size=1, max_size=8)))
    steps = [Step(T0 + timedelta(milliseconds=ms), Watts(draw(st.integers(0, 22_000)))) for ms in starts]
    return Schedule(tuple(steps)) if draw(st.booleans()) else constant(steps[0].limit_w)


@given(schedules(), st.integers(1, 6), st.sampled_from(Version), st.sampled_from(["A", "W"]), st.integers(0, 7_300))
def test_what_a_station_is_told_is_never_above_the_schedule(
    schedule: Schedule, periods: int, version: Version, unit: str, second: int
):
    capability = Capability(periods, 8, unit)
    command = a_command(layer=Layer.SESSION, transaction="7", schedule=schedule)
    payload = set_profile(version, command, a_binding(), capability, T0)
    profile = read_profile(request_decoder(version, "SetChargingProfile").decode(payload), T0)
    assert profile is not None
    assert len(profile.periods) <= periods
    instant = T0 + timedelta(seconds=second)
    value = profile.at(instant)
    assert value is not None
    watts = value[0] if unit == "W" else value[0] * 253.0 * 3
    assert watts <= schedule.at(instant) + 1e-6


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 9_000)), min_size=1, max_size=10), st.integers(1, 10))
def test_collapsing_never_raises_an_instant(gaps: list[tuple[int, int]], most: int):
    steps, at = [], 0
    for gap, value in gaps:
        steps.append((at, value))
        at += gap
    kept = collapse(steps, most)
    assert len(kept) <= most

    def value_at(points: list[tuple[int, int]], second: int) -> int:
        return [value for start, value in points if start <= second][-1]

    for second in range(0, at + 10, 7):
        assert value_at(kept, second) <= value_at(steps, second)


@given(limit_w=st.integers(0, 200_000), efficiency=st.integers(1, 1_000))
def test_what_a_dc_station_is_told_takes_no_more_from_the_grid_than_the_limit(limit_w: int, efficiency: int):
    binding = replace(a_binding(), efficiency=efficiency)
    payload = json.loads(set_profile(V16, a_command(limit_w=limit_w), binding, IN_WATTS, T0))
    told = payload["csChargingProfiles"]["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"]
    assert told * 1_000 <= limit_w * efficiency < (told + 1) * 1_000
