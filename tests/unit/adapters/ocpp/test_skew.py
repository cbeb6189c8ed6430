"""A station's clock: what tells that it is wrong, what does not, and what is sent to such a station."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from adapters.ocpp.core import Memory, OpenTransaction
from adapters.ocpp.core.skew import StationClock
from adapters.ocpp.peer import Car, SimulatedStation
from adapters.ocpp.translate.profile import Capability
from adapters.ocpp.wire import Version
from gateway.domain.events import ClockCompared, CommandAnswered, StationConnected
from gateway.domain.timeline import rfc3339
from gateway.testing.clock import ManualClock
from tests.support.ocpp import T0, FakeGate, a_command, a_station, until
from tests.support.ocpp_bench import Bench
from tests.support.ocpp_socket import a_gateway

V16, V201 = Version.V16, Version.V201


def told(readings: Iterable[tuple[float, float]], before: int | None = None) -> list[int]:
    """What is said of a clock whose messages came at ``at``, naming an instant so far ahead."""
    clock = StationClock(before)
    said = [clock.heard(ahead_s, at) for at, ahead_s in readings]
    return [ahead_s for ahead_s in said if ahead_s is not None]


def every_ten_seconds(*ahead_s: float) -> list[tuple[float, float]]:
    return [(10.0 * index, value) for index, value in enumerate(ahead_s)]


# --- what tells it ------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [-3600, -12, 0, 12, 3600])
def test_a_clock_is_known_after_two_rounds_that_agree(off_s: int):
    assert told(every_ten_seconds(*[off_s] * 4)) == [off_s]
    assert told(every_ten_seconds(*[off_s] * 3)) == []


def test_what_is_known_is_said_once():
    assert told(every_ten_seconds(*[-120] * 40)) == [-120]


def test_a_clock_that_is_set_right_is_said_to_be_right():
    assert told(every_ten_seconds(*[-120] * 4, *[-1] * 6)) == [-120, -1]


def test_a_single_late_message_says_nothing():
    assert told(every_ten_seconds(-1, -1, -1, -1, -900, -1, -1, -1), before=0) == []


def test_a_single_message_from_the_future_says_nothing():
    assert told(every_ten_seconds(-1, -1, -1, 4_000, -1, -1, -1, -1), before=0) == []


def test_the_least_late_message_counts():
    assert told(every_ten_seconds(-130, -121, -150, -122), before=0) == [-121]


def test_a_queue_that_is_told_faster_than_it_filled_says_nothing():
    """An hour of values at 10 s, told in a minute: each is less late than the one before."""
    queue = [(index / 6, -3600.0 + 10 * index) for index in range(360)]
    assert told(queue, before=0) == []
    assert told([*queue, *((70 + 10 * index, -0.5) for index in range(6))], before=0) == []


def test_a_burst_of_old_states_after_a_reconnect_says_nothing():
    assert told([(index / 10, -7_200.0) for index in range(50)], before=0) == []


def test_a_clock_at_the_edge_does_not_flap():
    assert told(every_ten_seconds(*[-9, -9, -9, -9, -11, -11, -11, -11] * 5)) == [-9]


# --- which messages speak of now ------------------------------------------------------------------


def usable(version: Version = V16, skew_s: int | None = None) -> Bench:
    running = {"77": OpenTransaction(1, "2031-03-01T16:00:00Z", "Charging")}
    memory = Memory(booted=True, capability=Capability(6, 1, "A"), transactions=running, skew_s=skew_s)
    return Bench(version, memory)


def a_status(version: Version, shown: datetime) -> tuple[str, dict[str, Any]]:
    if version is V16:
        payload = {"connectorId": 1, "errorCode": "NoError", "status": "Charging", "timestamp": rfc3339(shown)}
        return "StatusNotification", payload
    place = {"evseId": 1, "connectorId": 1, "connectorStatus": "Occupied"}
    return "StatusNotification", place | {"timestamp": rfc3339(shown)}


def values(version: Version, shown: datetime, **more: object) -> tuple[str, dict[str, Any]]:
    if version is V16:
        meter = [{"timestamp": rfc3339(shown), "sampledValue": [{"value": "5"}]}]
        return "MeterValues", {"connectorId": 1, "meterValue": meter}
    event = {"eventType": "Updated", "triggerReason": "MeterValuePeriodic", "seqNo": shown.second, **more}
    return "TransactionEvent", event | {"timestamp": rfc3339(shown), "transactionInfo": {"transactionId": "77"}}


def play(bench: Bench, off_s: float, make: Any, *, times: int = 6, **more: object) -> None:
    """A message every ten seconds from a station whose clock is off."""
    for _ in range(times):
        bench.now += timedelta(seconds=10)
        bench.at += 10
        bench.call(*make(bench.core.version, bench.now + timedelta(seconds=off_s), **more))


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("make", [a_status, values])
def test_a_wrong_clock_is_an_event_with_the_message_that_showed_it(version: Version, make: Any):
    bench = usable(version)
    play(bench, -120, make)
    (compared,) = bench.of(ClockCompared)
    assert (compared.station, compared.generation, compared.ahead_s) == ("CP-1", 7, -120)
    assert compared.message.endpoint == f"ocpp/{make(version, bench.now)[0]}"
    assert compared.message.raw is not None
    assert bench.memory.skew_s == -120


@pytest.mark.parametrize("version", Version)
def test_a_clock_that_is_right_is_said_once_and_not_remarked_again(version: Version):
    bench = usable(version)
    play(bench, -0.4, values, times=20)
    assert [c.ahead_s for c in bench.of(ClockCompared)] == [0]


def test_what_happened_offline_says_nothing():
    bench = usable(V201)
    play(bench, -120, values, offline=True, times=12)
    assert bench.of(ClockCompared) == []


def test_a_time_that_is_none_says_nothing():
    bench = usable(V16)
    for second in range(0, 100, 10):
        bench.at = float(second)
        status = {"connectorId": 1, "errorCode": "NoError", "status": "Charging", "timestamp": "yesterday"}
        bench.call("StatusNotification", status)
    assert bench.of(ClockCompared) == []


def test_a_boot_tells_the_time_and_what_was_heard_before_it_counts_no_more():
    bench = usable(V16)
    play(bench, -120, values, times=3)
    bench.call("BootNotification", {"chargePointVendor": "v", "chargePointModel": "m"})
    play(bench, -1, values, times=4)
    assert [c.ahead_s for c in bench.of(ClockCompared)] == [-1]


def test_the_next_connection_begins_with_what_is_known():
    bench = usable(V16, skew_s=-120)
    assert [c.clock_skew_s for c in bench.of(StationConnected)] == [-120]
    play(bench, -120, values)
    assert bench.of(ClockCompared) == []


def test_what_is_heard_before_the_line_is_known_is_told_with_it():
    bench = Bench(V16)
    play(bench, 60, a_status, times=4)
    bench.call("BootNotification", {"chargePointVendor": "v", "chargePointModel": "m"})
    bench.answer({"configurationKey": []})
    assert [c.clock_skew_s for c in bench.of(StationConnected)] == [60]
    assert bench.of(ClockCompared) == []


# --- what such a station is sent --------------------------------------------------------------------


@pytest.mark.parametrize("version", Version)
def test_a_share_holds_at_once_also_where_the_clock_is_behind(version: Version):
    bench = usable(version, skew_s=-2 * 86_400)
    while bench.open() is not None:
        bench.answer({"status": "Accepted"})
    bench.do(bench.core.command(a_command(generation=7), T0, 0))
    sent = next(frame[3] for frame in bench.sent if frame[0] == 2 and frame[2] == "SetChargingProfile")
    profile = sent["csChargingProfiles"] if version is V16 else sent["chargingProfile"]
    schedule = profile["chargingSchedule"] if version is V16 else profile["chargingSchedule"][0]
    assert schedule["startSchedule"] == "2031-02-26T17:00:00Z"


@pytest.mark.anyio
@pytest.mark.parametrize("off_s", [-120, 120])
@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_a_simulated_station_with_a_wrong_clock_is_found_and_forgiven(version: str, off_s: int):
    gate, clock = FakeGate(), ManualClock(T0)
    async with a_gateway(gate, a_station(), clock=clock) as running:
        url = f"ws://127.0.0.1:{running.ports['lab']}"
        station = SimulatedStation("CP-1", serial="SN-CP-1", url=url, clock=clock, version=version)
        station.clock_off_s = off_s
        await station.start()
        try:
            await until(lambda: running.connected)
            running.apply(a_command(limit_w=5_000))
            await until(lambda: gate.of(CommandAnswered))
            # The share is one period and holds whatever the clock says.
            assert station.limit_a() == 6.5
            station.plug_in(Car(energy_wh=10_000, max_w=11_000))
            await _charge(gate, clock, station, 1)
            station.clock_off_s = 0
            await _charge(gate, clock, station, 2)
        finally:
            await station.stop()
    assert [c.ahead_s for c in gate.of(ClockCompared)] == [off_s, 0]


async def _charge(gate: FakeGate, clock: ManualClock, station: SimulatedStation, compared: int) -> None:
    """Let values come until the clock was compared so often."""
    for _ in range(20):
        if len(gate.of(ClockCompared)) >= compared:
            return
        before = len(gate.samples)
        await clock.advance(station.meter_interval_s)
        await until(lambda seen=before: len(gate.samples) > seen)
        await asyncio.sleep(0)
