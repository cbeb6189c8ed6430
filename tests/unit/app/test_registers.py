"""What is told of a node: its meter, the chargers below, the rest, and every session."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from gateway.domain import events as ev
from gateway.domain.ids import NodeId
from gateway.domain.measurement import Quantity
from gateway.domain.quantities import WattHours
from tests.unit.app.builders import Driver, a_tree, at, heartbeat, message

METERS = {"main": 900_000, "main/garage/evse-1": 10_000, "main/garage/evse-2": 20_000}


def a_site() -> Driver:
    driver = Driver(tree=a_tree(evses=2))
    driver.step(heartbeat(600))
    return driver


def read(driver: Driver, minutes: float, **registers: int) -> list[dict[str, Any]]:
    """Let meters tell their registers and return what is owed to the source then."""
    named = {"main": "main", "one": "main/garage/evse-1", "two": "main/garage/evse-2"}
    values = {**METERS, **{named[k]: v for k, v in registers.items()}}
    now = at(minutes)
    samples = tuple(ev.Sample(NodeId(n), Quantity.E_IMPORT, v, now, now) for n, v in values.items())
    driver.step(ev.TelemetryTick(samples, f"tick-{minutes}"), now=now)
    assert driver.last is not None
    reports = [item for item in driver.last.outbox if item.kind == "measurements"]
    return [dict(value) for item in reports for value in item.body["values"]]  # type: ignore[union-attr,arg-type]


def start(driver: Driver, minutes: float, meter_wh: int | None) -> None:
    meter = None if meter_wh is None else WattHours(meter_wh)
    evse = NodeId("main/garage/evse-1")
    driver.step(ev.SessionStarted(evse, "tx-1", at(minutes), message("start"), meter), now=at(minutes))


def by_scope(values: list[dict[str, Any]]) -> dict[str, int]:
    return {v["scope"]: v["value"] for v in values if "since" not in v and v["quantity"] == "energy_import_wh"}


def sessions(values: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(v["value"], v["since"]) for v in values if "since" in v]


def test_the_rest_is_what_the_meter_counted_beyond_the_chargers() -> None:
    assert by_scope(read(a_site(), 1)) == {"TOTAL": 900_000, "FLEXIBLE": 30_000, "NONFLEXIBLE": 870_000}


def test_the_rest_does_not_step_back_when_a_charger_was_read_a_little_later() -> None:
    driver = a_site()
    read(driver, 1)
    assert by_scope(read(driver, 2, one=10_400))["NONFLEXIBLE"] == 870_000
    assert by_scope(read(driver, 3, one=10_400, main=901_000))["NONFLEXIBLE"] == 870_600


def test_the_rest_begins_anew_with_another_meter() -> None:
    driver = a_site()
    read(driver, 1)
    assert by_scope(read(driver, 2, main=50_000))["NONFLEXIBLE"] == 20_000


def test_a_meter_behind_its_chargers_tells_no_rest() -> None:
    assert "NONFLEXIBLE" not in by_scope(read(a_site(), 1, main=29_999))


def test_a_running_session_tells_what_it_has_taken_since_it_began() -> None:
    driver = a_site()
    start(driver, 0.5, 9_000)
    assert sessions(read(driver, 1)) == [(1_000, "2026-03-01T17:00:30Z")]
    assert sessions(read(driver, 2, one=12_500)) == [(3_500, "2026-03-01T17:00:30Z")]


def test_an_ended_session_is_told_once_more_with_its_last_value() -> None:
    driver = a_site()
    start(driver, 0.5, 9_000)
    read(driver, 1)
    end = ev.SessionEnded(NodeId("main/garage/evse-1"), "tx-1", at(1.5), message("stop"), WattHours(11_200))
    driver.step(end, now=at(1.5))
    told = read(driver, 2, one=11_200)
    assert sessions(told) == [(2_200, "2026-03-01T17:00:30Z")]
    assert next(v for v in told if "since" in v)["measured_at"] == "2026-03-01T17:01:30Z"
    assert sessions(read(driver, 3, one=11_200)) == []


def test_a_session_without_a_first_reading_tells_nothing() -> None:
    driver = a_site()
    start(driver, 0.5, None)
    assert sessions(read(driver, 1)) == []


def test_power_is_told_beside_the_registers() -> None:
    driver = a_site()
    now = at(1)
    driver.step(
        ev.TelemetryTick((ev.Sample(NodeId("main"), Quantity.P, 7_500, now, now),), "p"), now=now - timedelta(seconds=1)
    )
    values = read(driver, 2)
    assert [(v["value"], v["measured_at"]) for v in values if v["quantity"] == "power_w"] == [
        (7_500, "2026-03-01T17:01:00Z")
    ]


def test_the_first_report_comes_with_the_first_value_however_long_none_was_known() -> None:
    driver = a_site()
    driver.step(ev.DeadlineReached(), now=at(10))
    assert by_scope(read(driver, 10.1))["TOTAL"] == 900_000
    assert not read(driver, 10.2), "the next one is a period later"
