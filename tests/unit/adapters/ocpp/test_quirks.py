"""The table of what stations in the field do otherwise, and what follows from each kind of row."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.core.metering import SILENT_AFTER_S
from adapters.ocpp.core.proof import RECHECK_S
from adapters.ocpp.core.quirks import Effect, Quirk, effect_of
from adapters.ocpp.quirk_table import quirks
from adapters.ocpp.translate.profile import Capability, set_profile
from adapters.ocpp.wire import Version, request_decoder
from gateway.domain.effects import Layer
from gateway.domain.events import CommandAnswered, Outcome, StationNoted
from tests.support.ocpp import T0, a_binding, a_command, falling
from tests.support.ocpp_bench import Bench

V16, V201 = Version.V16, Version.V201
TABLE = quirks()


def a_bench(version: Version = V16, **about: str) -> Bench:
    """A station with a transaction, whose boot said so much about itself."""
    running = {"77": OpenTransaction(1, "2031-03-01T16:00:00Z")}
    memory = Memory(booted=True, capability=Capability(6, 1, "A"), transactions=running, about=about)
    bench = Bench(version, memory, quirks=TABLE)
    answer_all(bench)
    return bench


def answer_all(bench: Bench, status: str = "Accepted") -> list[tuple[str, dict[str, Any]]]:
    """Answer whatever is asked until nothing is."""
    asked = []
    while (call := bench.open()) is not None:
        asked.append((call[2], call[3]))
        bench.answer({"status": status})
    return asked


def a_session(bench: Bench, name: str = "cmd", limit_w: int = 8_000) -> None:
    command = a_command(name, generation=7, layer=Layer.SESSION, transaction="77", limit_w=limit_w)
    bench.do(bench.core.command(command, T0, bench.at))


def status(bench: Bench, word: str) -> None:
    bench.call("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": word})


# --- the table -------------------------------------------------------------------------------


def test_every_row_has_a_name_of_its_own_and_says_what_follows():
    assert len({quirk.name for quirk in TABLE}) == len(TABLE)
    for quirk in TABLE:
        assert quirk.seen
        assert (quirk.effect != Effect()) != bool(quirk.handled)
        # An effect on every station would be no quirk.
        assert quirk.vendor or quirk.handled


def test_a_hint_is_short_enough_for_evidence():
    assert all(len(quirk.effect.hint) <= 64 for quirk in TABLE)


def test_an_unknown_effect_is_a_mistake():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "x", "seen": "y", "effect": {"dance": True}}, Quirk)


@pytest.mark.parametrize(
    ("about", "effect"),
    [
        ({"vendor": "Timxon", "model": "A0-22"}, Effect(kind="Relative")),
        ({"vendor": "TIMXON", "model": "B1"}, Effect()),
        ({"vendor": "eProWallbox"}, Effect(unit="W")),
        ({"vendor": "Wall Box Chargers", "model": "Pulsar Pro"}, Effect(poll_meter=True)),
        ({"vendor": "go-e", "model": "HOME"}, Effect(resend_after_pause=True)),
        ({"vendor": "EV-BOX"}, Effect()),
        ({}, Effect()),
    ],
)
def test_a_station_is_known_by_how_its_names_begin(about: dict[str, str], effect: Effect):
    assert effect_of(TABLE, about) == effect


def test_later_rows_win_and_others_add():
    rows = [Quirk("a", "x", effect=Effect(unit="W", poll_meter=True)), Quirk("b", "x", effect=Effect(unit="A"))]
    assert effect_of(rows, {}) == Effect(unit="A", poll_meter=True)


# --- what follows ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", Version)
def test_a_relative_profile_has_one_period_the_lowest(version: Version):
    command = a_command(layer=Layer.SESSION, transaction="77", schedule=falling(T0, (0, 11_000), (900, 5_000)))
    payload = set_profile(version, command, a_binding(), Capability(24, 8, "A", "Relative"), T0)
    request_decoder(version, "SetChargingProfile").decode(payload)
    message = json.loads(payload)
    profile = message.get("csChargingProfiles") or message["chargingProfile"]
    schedules = profile["chargingSchedule"]
    schedule = schedules if version is V16 else schedules[0]
    assert profile["chargingProfileKind"] == "Relative"
    assert "startSchedule" not in schedule
    assert [p["limit"] for p in schedule["chargingSchedulePeriod"]] == [6.5]


def test_a_boot_tells_at_once_what_is_different():
    bench = Bench(V16, quirks=TABLE)
    bench.call("BootNotification", {"chargePointVendor": "Timxon", "chargePointModel": "A0"})
    answer_all(bench)
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    profile = bench.open()[3]["csChargingProfiles"]
    assert profile["chargingProfileKind"] == "Relative"


def test_a_station_for_watts_gets_watts_where_it_does_not_say():
    bench = a_bench(vendor="eProWallbox")
    bench.memory.capability = None
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    assert bench.open()[3]["csChargingProfiles"]["chargingSchedule"]["chargingRateUnit"] == "W"


@pytest.mark.parametrize("version", Version)
def test_a_meter_that_never_speaks_is_asked_at_every_interval(version: Version):
    bench = a_bench(version, vendor="Wallbox", model="Pulsar Pro")
    asked = []
    for second in (10, 20):
        bench.tick(second)
        asked += answer_all(bench)
    assert [action for action, _ in asked] == ["TriggerMessage"] * 2
    place = {"connectorId": 1} if version is V16 else {"evse": {"id": 1}}
    assert asked[0][1] == {"requestedMessage": "MeterValues", **place}


def test_any_meter_that_falls_silent_while_charging_is_asked():
    bench = a_bench()
    values = [{"timestamp": "2031-03-01T17:00:00Z", "sampledValue": [{"value": "5"}]}]
    asked = []
    for second in range(10, 200, 10):
        bench.tick(second)
        asked += [(second, action) for action, _ in answer_all(bench)]
        if second <= 50:
            bench.call("MeterValues", {"connectorId": 1, "meterValue": values})
    assert asked[0] == (50 + SILENT_AFTER_S, "TriggerMessage")


def test_a_station_that_refuses_to_be_asked_is_remarked_once_and_left_alone():
    bench = a_bench(vendor="Wallbox", model="Pulsar Pro")
    for second in (10, 20, 30):
        bench.tick(second)
        answer_all(bench, "Rejected")
    assert [n.type for n in bench.of(StationNoted)] == ["meter.silent"]


def test_nobody_is_asked_while_nobody_charges():
    bench = Bench(V16, Memory(booted=True, capability=Capability(), about={"vendor": "Wallbox"}), quirks=TABLE)
    answer_all(bench)
    bench.tick(1_000)
    assert bench.open() is None


def test_after_a_pause_the_last_limit_is_sent_again():
    bench = a_bench(vendor="go-e")
    a_session(bench)
    first = bench.open()[3]
    answer_all(bench)
    status(bench, "SuspendedEVSE")
    assert bench.open() is None
    status(bench, "Charging")
    assert bench.open()[2:] == ["SetChargingProfile", first]
    answer_all(bench)
    status(bench, "Charging")
    assert bench.open() is None


def test_after_a_pause_nothing_old_follows_something_newer():
    bench = a_bench(vendor="go-e")
    a_session(bench)
    answer_all(bench)
    status(bench, "SuspendedEVSE")
    a_session(bench, "newer", 7_000)
    status(bench, "Charging")
    assert [action for action, _ in answer_all(bench)].count("SetChargingProfile") == 1


def tell_state(bench: Bench, state: str, **more: object) -> None:
    event = {"eventType": "Updated", "triggerReason": "ChargingStateChanged", "timestamp": "2031-03-01T17:00:00Z"}
    event["seqNo"] = len(bench.jobs)
    bench.call("TransactionEvent", event | more | {"transactionInfo": {"transactionId": "77", "chargingState": state}})


def test_after_a_pause_a_201_station_is_told_again_too():
    bench = a_bench(V201, vendor="go-e")
    a_session(bench)
    first = bench.open()[3]
    answer_all(bench)
    tell_state(bench, "SuspendedEVSE")
    assert bench.open() is None
    tell_state(bench, "Charging")
    assert bench.open()[2:] == ["SetChargingProfile", first]
    answer_all(bench)
    tell_state(bench, "Charging")
    assert bench.open() is None


def test_what_a_201_station_tells_of_the_past_or_of_an_end_is_no_end_of_a_pause():
    bench = a_bench(V201, vendor="go-e")
    a_session(bench)
    answer_all(bench)
    tell_state(bench, "SuspendedEVSE")
    tell_state(bench, "Charging", offline=True)
    assert bench.open() is None
    tell_state(bench, "Idle", eventType="Ended")
    assert bench.open() is None


@pytest.mark.parametrize("about", [{}, {"vendor": "EVBox"}])
def test_other_stations_are_not_told_twice(about: dict[str, str]):
    bench = a_bench(**about)
    a_session(bench)
    answer_all(bench)
    status(bench, "SuspendedEVSE")
    status(bench, "Charging")
    assert bench.open() is None


def test_a_rejection_comes_with_a_hint_for_the_installer():
    bench = a_bench(vendor="Schneider Electric")
    a_session(bench)
    bench.answer({"status": "Rejected"})
    (hint,) = [n for n in bench.of(StationNoted) if n.type == "station.hint"]
    assert "EM controlled by external system" in dict(hint.detail)["hint"]


LIAR = Quirk("acme", "reports too much", vendor="ACME", effect=Effect(skip_proof=True))


@pytest.mark.parametrize("version", Version)
def test_a_station_whose_reports_are_wrong_is_believed_and_that_is_said(version: Version):
    memory = Memory(booted=True, capability=Capability(6, 1, "A"), about={"vendor": "ACME", "model": "7"})
    memory.distrusted.add(1)
    bench = Bench(version, memory, quirks=(LIAR,))
    answer_all(bench)
    for name in ("first", "second"):
        bench.do(bench.core.command(a_command(name, generation=7), T0, 0))
        assert "GetCompositeSchedule" not in [action for action, _ in answer_all(bench)]
    assert [a.outcome for a in bench.of(CommandAnswered)] == [Outcome.ACCEPTED] * 2
    (note,) = [n for n in bench.of(StationNoted) if n.type == "station.proof-skipped"]
    assert dict(note.detail) == {"vendor": "ACME", "model": "7"}
    bench.tick(RECHECK_S)
    assert "GetCompositeSchedule" not in bench.asked()


def test_what_may_stand_above_ours_is_cleared_all_the_same():
    memory = Memory(booted=True, capability=Capability(6, 1, "A"), about={"vendor": "ACME"})
    bench = Bench(V16, memory, quirks=(LIAR,))
    answer_all(bench)
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    asked = [action for action, _ in answer_all(bench)]
    assert asked == ["SetChargingProfile", "ClearChargingProfile", "ClearChargingProfile", "SetChargingProfile"]


def test_a_rejection_of_such_a_station_is_a_rejection():
    memory = Memory(booted=True, capability=Capability(6, 1, "A"), about={"vendor": "ACME"})
    bench = Bench(V16, memory, quirks=(LIAR,))
    answer_all(bench)
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    bench.answer({"status": "Rejected"})
    assert [a.outcome for a in bench.of(CommandAnswered)] == [Outcome.REJECTED]
    assert [n.type for n in bench.of(StationNoted) if n.type == "station.proof-skipped"] == []


# --- having the meter reported -------------------------------------------------------------------


def configured(version: Version) -> dict[str, str]:
    bench = Bench(version, Memory(booted=True, capability=Capability()))
    found: dict[str, str] = {}
    for action, payload in answer_all(bench):
        if action == "ChangeConfiguration":
            found[payload["key"]] = payload["value"]
        if action == "SetVariables":
            for data in payload["setVariableData"]:
                found.setdefault(f"{data['component']['name']}.{data['variable']['name']}", data["attributeValue"])
    return found


POWER_AND_ENERGY = "Power.Active.Import,Energy.Active.Import.Register"
RICHEST = f"{POWER_AND_ENERGY},Current.Import,Voltage"


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            V16,
            {
                "MeterValueSampleInterval": "10",
                "MeterValuesSampledData": RICHEST,
                "MeterValuesAlignedData": POWER_AND_ENERGY,
                "ClockAlignedDataInterval": "10",
            },
        ),
        (
            V201,
            {
                "SampledDataCtrlr.TxUpdatedInterval": "10",
                "SampledDataCtrlr.TxUpdatedMeasurands": RICHEST,
                "SampledDataCtrlr.TxStartedMeasurands": "Energy.Active.Import.Register",
                "SampledDataCtrlr.TxEndedMeasurands": "Energy.Active.Import.Register",
                "AlignedDataCtrlr.Measurands": POWER_AND_ENERGY,
                "AlignedDataCtrlr.Interval": "10",
            },
        ),
    ],
)
def test_each_version_is_told_in_its_own_words_what_to_measure(version: Version, expected: dict[str, str]):
    assert configured(version) == expected


def test_names_of_calls_never_repeat():
    bench = a_bench(vendor="Wallbox", model="Pulsar")
    for second in itertools.islice(itertools.count(10, 10), 5):
        bench.tick(second)
        answer_all(bench)
    names = [frame[1] for frame in bench.sent if frame[0] == 2]
    assert len(names) == len(set(names))
