"""What a station says of its wiring, and what it contradicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adapters.ocpp.core import Memory
from adapters.ocpp.core.rotation import contradictions, read
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version
from gateway.domain.events import StationNoted
from gateway.domain.quantities import Phase
from tests.support.ocpp import a_binding
from tests.support.ocpp_bench import Bench

V16, V201 = Version.V16, Version.V201
L1, L2, L3 = Phase


def said_16(value: str) -> dict[str, Any]:
    return {"configurationKey": [{"key": "ConnectorPhaseRotation", "readonly": False, "value": value}]}


def said_201(**values: str) -> dict[str, Any]:
    """Values of ``ChargingStation``, ``EVSE`` 1 and its ``Connector``."""
    places: dict[str, dict[str, Any]] = {
        "ChargingStation": {},
        "EVSE": {"evse": {"id": 1}},
        "Connector": {"evse": {"id": 1, "connectorId": 1}},
    }
    return {
        "getVariableResult": [
            {
                "attributeStatus": "Accepted" if name in values else "UnknownVariable",
                **({"attributeValue": values[name]} if name in values else {}),
                "component": {"name": name, **place},
                "variable": {"name": "PhaseRotation"},
            }
            for name, place in places.items()
        ]
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.RST", {1: (L1, L2, L3)}),
        ("1.STR, 2.RTS", {1: (L2, L3, L1), 2: (L1, L3, L2)}),
        ("0.STR,1.RST", {1: (L2, L3, L1)}),
        ("0.STR,1.TRS", {1: (L1, L2, L3)}),
        ("0.Unknown,1.SRT", {1: (L2, L1, L3)}),
        ("1.Unknown,2.NotApplicable", {}),
        ("1.RRT,2.XYZ,x.RST,RST,3.RS,-1.RST", {}),
        ("", {}),
    ],
)
def test_a_16_station_says_it_in_a_list_that_the_main_meter_turns(value: str, expected: dict[int, Any]):
    assert read(V16, json.dumps(said_16(value)).encode()) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"EVSE": "RST"}, {1: (L1, L2, L3)}),
        ({"ChargingStation": "STR", "EVSE": "RST"}, {1: (L2, L3, L1)}),
        ({"ChargingStation": "STR", "EVSE": "STR", "Connector": "STR"}, {1: (L1, L2, L3)}),
        ({"Connector": "Sxx"}, {1: (L2, None, None)}),
        ({"ChargingStation": "TRS", "Connector": "Rxx"}, {1: (L3, None, None)}),
        ({"ChargingStation": "STR"}, {}),
        ({"EVSE": ""}, {}),
        ({"EVSE": "xxx"}, {}),
    ],
)
def test_a_201_station_says_it_component_by_component(values: dict[str, str], expected: dict[int, Any]):
    assert read(V201, json.dumps(said_201(**values)).encode()) == expected


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"getVariableResult":[]}', b"\xff"])
@pytest.mark.parametrize("version", Version)
def test_what_cannot_be_read_says_nothing(version: Version, payload: bytes):
    assert read(version, payload) == {}


@pytest.mark.parametrize(
    ("configured", "says", "contradicted"),
    [
        ((L1, L2, L3), (L1, L2, L3), False),
        ((L2, L3, L1), (L2, L3, L1), False),
        ((L1, L2, L3), (L2, L3, L1), True),
        ((L2,), (L2, None, None), False),
        ((L2,), (L1, L2, L3), True),
        ((L1, L2), (L1, None, None), True),
        ((L1,), (L1, L2, L3), False),
    ],
)
def test_only_terminals_that_are_configured_can_be_contradicted(configured: Any, says: Any, contradicted: bool):
    binding = replace(a_binding(), phases=configured)
    assert bool(contradictions({1: says}, [binding])) is contradicted


def remarks(bench: Bench) -> list[StationNoted]:
    return [note for note in bench.of(StationNoted) if note.type == "station.phase-rotation"]


def answered(version: Version, says: dict[str, Any], memory: Memory | None = None) -> Bench:
    """A station in use that says so when it is asked."""
    bench = Bench(version, memory or Memory(booted=True, capability=Capability(6, 8, "A")))
    while (call := bench.open()) is not None:
        asked = json.dumps(call[3])
        bench.answer(says if "PhaseRotation" in asked else {"status": "Accepted"})
    return bench


CONTRADICTING = {V16: said_16("0.RST,1.STR"), V201: said_201(EVSE="STR")}
AGREEING = {V16: said_16("0.RST,1.RST"), V201: said_201(EVSE="RST")}


@pytest.mark.parametrize("version", Version)
def test_a_contradiction_is_evidence_and_changes_nothing(version: Version):
    bench = answered(version, CONTRADICTING[version])
    (note,) = remarks(bench)
    assert dict(note.detail) == {"evse": "main/evse-1", "configured": "L1 L2 L3", "says": "L2 L3 L1"}
    assert bench.core.settings.evses[0].phases == (L1, L2, L3)


@pytest.mark.parametrize("version", Version)
def test_agreement_and_silence_are_nothing_to_remark(version: Version):
    assert remarks(answered(version, AGREEING[version])) == []
    assert remarks(answered(version, {})) == []


@pytest.mark.parametrize("version", Version)
def test_on_the_next_connection_only_what_changed_is_remarked(version: Version):
    memory = Memory(booted=True, capability=Capability(6, 8, "A"))
    counts = [
        len(remarks(answered(version, says[version], memory)))
        for says in (CONTRADICTING, CONTRADICTING, AGREEING, CONTRADICTING)
    ]
    assert counts == [1, 0, 0, 1]
