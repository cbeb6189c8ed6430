"""Meter values and states in the domain's units, phases and signs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ocpp.translate.meter import MeterPoint, samples_16, samples_201
from adapters.ocpp.translate.status import status_16, status_201, wants_power
from adapters.ocpp.wire import v16, v201
from gateway.domain.measurement import Quality, Quantity
from gateway.domain.quantities import Phase, Volts
from tests.support.ocpp import EVSE, T0

POINT = MeterPoint(EVSE, (Phase.L2, Phase.L3, Phase.L1), Volts(230.0), "CP-1")
SINGLE = MeterPoint(EVSE, (Phase.L3,), Volts(230.0), "CP-1")
STAMP = "2031-03-01T16:59:58Z"


def old(*values: dict, point: MeterPoint = POINT, stamp: str = STAMP) -> dict[Quantity, tuple[int, Quality]]:
    meter = msgspec.convert({"timestamp": stamp, "sampledValue": list(values)}, v16.MeterValue)
    return {s.quantity: (s.value, s.quality) for s in samples_16([meter], point, T0)}


def new(*values: dict, point: MeterPoint = POINT) -> dict[Quantity, tuple[int, Quality]]:
    meter = msgspec.convert({"timestamp": STAMP, "sampledValue": list(values)}, v201.MeterValueType)
    return {s.quantity: (s.value, s.quality) for s in samples_201([meter], point, T0)}


def test_a_bare_value_is_the_energy_register_in_watt_hours():
    assert old({"value": "1234.4"}) == {Quantity.E_IMPORT: (1234, Quality.GOOD)}


@pytest.mark.parametrize(
    ("value", "unit", "watts"), [("7360", "W", 7360), ("7.36", "kW", 7360), (7360.0, None, 7360), (" 7360 ", "W", 7360)]
)
def test_power_comes_in_watts_or_kilowatts(value: str | float, unit: str | None, watts: int):
    sample = {"value": value, "measurand": "Power.Active.Import", **({"unit": unit} if unit else {})}
    assert old(sample)[Quantity.P] == (watts, Quality.GOOD)


def test_a_multiplier_scales_a_201_value():
    unit = {"unit": "W", "multiplier": 3}
    assert new({"value": 7.4, "measurand": "Power.Active.Import", "unitOfMeasure": unit})[Quantity.P][0] == 7400


def test_export_is_negative():
    found = old(
        {"value": "100", "measurand": "Power.Active.Import"}, {"value": "3100", "measurand": "Power.Active.Export"}
    )
    assert found[Quantity.P][0] == -3000


def test_terminals_become_site_phases():
    values = [{"value": str(10 + n), "measurand": "Current.Import", "phase": f"L{n}"} for n in (1, 2, 3)]
    found = old(*values)
    assert [found[q][0] for q in (Quantity.I_L1, Quantity.I_L2, Quantity.I_L3)] == [13_000, 11_000, 12_000]


def test_power_is_computed_from_currents_where_it_is_not_sent():
    values = [{"value": "10", "measurand": "Current.Import", "phase": f"L{n}"} for n in (1, 2, 3)]
    volts = [{"value": "240", "measurand": "Voltage", "phase": f"L{n}-N"} for n in (1, 2, 3)]
    assert old(*values, *volts)[Quantity.P] == (7200, Quality.ESTIMATED)
    assert old(*values)[Quantity.P] == (6900, Quality.ESTIMATED)


def test_a_current_without_phase_counts_for_each_phase():
    assert old({"value": "6", "measurand": "Current.Import"})[Quantity.I_L2] == (6000, Quality.ESTIMATED)
    single = old({"value": "6", "measurand": "Current.Import"}, point=SINGLE)
    assert single[Quantity.I_L3] == (6000, Quality.GOOD)
    assert single[Quantity.P] == (1380, Quality.ESTIMATED)


def test_power_per_phase_is_summed():
    values = [{"value": "1000", "measurand": "Power.Active.Import", "phase": f"L{n}"} for n in (1, 2, 3)]
    assert old(*values)[Quantity.P][0] == 3000


def test_the_state_of_charge_is_the_vehicles():
    assert old({"value": "55.5", "measurand": "SoC", "location": "EV", "unit": "Percent"})[Quantity.SOC][0] == 5550


@pytest.mark.parametrize(
    "sample",
    [
        {"value": "x"},
        {"value": "NaN"},
        {"value": "1e30"},
        {"value": "-Infinity"},
        {"value": "5", "unit": "parsec"},
        {"value": "5", "format": "SignedData"},
        {"value": "5", "measurand": "Power.Active.Import", "location": "EV"},
        {"value": "5", "measurand": "Current.Import", "phase": "N"},
        {"value": "5", "measurand": "Something.New"},
    ],
)
def test_what_cannot_be_read_is_dropped_and_the_rest_counts(sample: dict):
    assert old(sample, {"value": "8"}) == {Quantity.E_IMPORT: (8, Quality.GOOD)}


def test_an_empty_list_says_nothing():
    assert old() == {}


@pytest.mark.parametrize(
    ("stamp", "ahead", "quality"),
    [
        (STAMP, -2, Quality.GOOD),
        ("2031-03-01T16:59:58", -2, Quality.GOOD),
        ("2031-03-01T18:59:58+02:00", -2, Quality.GOOD),
        ("2031-03-01T17:30:00Z", 1800, Quality.SUSPECT),
        ("yesterday", 0, Quality.SUSPECT),
    ],
)
def test_a_time_that_cannot_be_believed_makes_the_value_suspect(stamp: str, ahead: int, quality: Quality):
    meter = msgspec.convert({"timestamp": stamp, "sampledValue": [{"value": "1"}]}, v16.MeterValue)
    (sample,) = samples_16([meter], POINT, T0)
    assert sample.measured_at == T0 + timedelta(seconds=ahead)
    assert (sample.received_at, sample.quality, sample.source) == (T0, quality, "CP-1")


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12), st.text(max_size=12), st.text(max_size=30))
def test_no_words_of_a_station_break_the_translation(value: str, unit: str, measurand: str, phase: str, stamp: str):
    sample = v16.SampledValue(value=value, unit=unit, measurand=measurand, phase=phase)
    samples_16([v16.MeterValue(timestamp=stamp, sampled_value=(sample,))], POINT, T0)


@pytest.mark.parametrize(
    ("word", "occupied", "wants"),
    [
        ("Available", False, False),
        ("Preparing", True, None),
        ("Charging", True, True),
        ("SuspendedEVSE", True, True),
        ("SuspendedEV", True, False),
        ("Finishing", True, False),
        ("Reserved", False, False),
        ("Unavailable", False, False),
    ],
)
def test_a_16_status_says_who_stops_the_flow(word: str, occupied: bool, wants: bool | None):
    status = status_16(v16.StatusNotificationRequest(connector_id=1, error_code="NoError", status=word), EVSE)
    assert (status.occupied, status.wants_power, status.fault) == (occupied, wants, "")


def test_a_fault_is_named():
    faulted = v16.StatusNotificationRequest(connector_id=1, error_code="GroundFailure", status="Faulted")
    assert status_16(faulted, EVSE).fault == "GroundFailure"
    other = v201.StatusNotificationRequest(timestamp=STAMP, connector_status="Faulted", evse_id=1, connector_id=1)
    assert status_201(other, EVSE).fault == "Faulted"


def test_every_charging_state_is_decided():
    states = ("Charging", "SuspendedEVSE", "SuspendedEV", "EVConnected", "Idle", None)
    assert [wants_power(state) for state in states] == [True, True, False, None, False, None]


@pytest.mark.parametrize(("imported", "exported", "at_the_grid"), [("9500", "0", 10_000), ("0", "10000", -9_500)])
def test_power_measured_behind_a_rectifier_is_told_as_the_grid_sees_it(imported: str, exported: str, at_the_grid: int):
    values = [
        {"value": imported, "measurand": "Power.Active.Import"},
        {"value": exported, "measurand": "Power.Active.Export"},
    ]
    assert old(*values, point=replace(POINT, efficiency=950))[Quantity.P] == (at_the_grid, Quality.GOOD)
