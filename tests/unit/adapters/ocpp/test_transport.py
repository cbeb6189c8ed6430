"""Over loopback sockets: admission, one connection per station, commits and limits."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
from datetime import timedelta

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from adapters.ocpp import ADAPTER
from adapters.ocpp.core import ADAPTER as ROWS
from adapters.ocpp.peer import Car, Profile, SimulatedStation
from gateway.domain.effects import Layer
from gateway.domain.errors import ConfigError
from gateway.domain.events import (
    ClaimRefuted,
    CommandAnswered,
    Event,
    MessageRefused,
    Outcome,
    SessionEnded,
    SessionStarted,
    StationConnected,
    StationDisconnected,
    StationNoted,
)
from gateway.infra.clock_system import SystemClock
from gateway.kit.tls import client_context
from gateway.pki.dev import DevPki
from gateway.testing.clock import ManualClock, StoryClock
from tests.support.ocpp import PATIENCE_S, T0, FakeGate, a_command, a_context, a_station, falling, until
from tests.support.ocpp_socket import a_gateway, a_socket, call, status_of

pytestmark = pytest.mark.anyio

BOOT = {"chargePointVendor": "v", "chargePointModel": "m"}
START = {"connectorId": 1, "idTag": "CARD-1", "meterStart": 0, "timestamp": "2031-03-01T17:00:00Z"}


async def obey_everything(socket: ClientConnection) -> None:
    """Accept every CALL until cancelled."""
    async for text in socket:
        frame = json.loads(text)
        if frame[0] == 2:
            await socket.send(json.dumps([3, frame[1], {"status": "Accepted"}]))


# --- admission -----------------------------------------------------------------------------


async def test_refusals_look_alike_and_leave_a_trace():
    gate = FakeGate()
    digest = hashlib.sha256(b"s" * 16).hexdigest()
    async with a_gateway(gate, a_station(profile=1, password_sha256=digest)) as running:
        with pytest.raises(InvalidStatus) as unknown:
            async with a_socket(running, "CP-9"):
                pass
        wrong = base64.b64encode(b"CP-1:nope").decode()
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, additional_headers={"Authorization": f"Basic {wrong}"}):
                pass
        right = base64.b64encode(b"CP-1:" + b"s" * 16).decode()
        async with a_socket(running, additional_headers={"Authorization": f"Basic {right}"}) as socket:
            assert (await call(socket, "BootNotification", BOOT))[2]["status"] == "Accepted"
    assert status_of(unknown) == (404, b"refused\n")
    assert status_of(refused) == (401, b"refused\n")
    assert [(r.code, r.text) for r in gate.of(MessageRefused)] == [
        ("404", "no station 'CP-9' here"),
        ("401", "wrong credentials"),
    ]


async def test_without_a_common_subprotocol_the_handshake_ends_and_then_the_connection():
    async with a_gateway(FakeGate(), a_station()) as running, a_socket(running, "CP-1", "ocpp9.9") as socket:
        assert socket.subprotocol is None
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1002


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("ocpp2.0.1", "ocpp1.6"), "ocpp2.0.1"),
        (("ocpp1.6", "ocpp2.0.1"), "ocpp1.6"),
        (("ocpp2.1", "ocpp2.0.1"), "ocpp2.0.1"),
    ],
)
async def test_the_clients_first_choice_that_we_speak_counts(offered: tuple[str, ...], chosen: str):
    async with a_gateway(FakeGate(), a_station()) as running, a_socket(running, "CP-1", *offered) as socket:
        assert socket.subprotocol == chosen


async def test_a_frame_above_64_kib_ends_the_connection():
    async with a_gateway(FakeGate(), a_station()) as running, a_socket(running) as socket:
        await socket.send("[" + " " * 70_000 + "]")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"profile": 3}, "ocpp.profile"),
        ({"profile": 2}, "ocpp.profile"),
        ({"profile": 1}, "ocpp.no-password"),
        ({"listener": "nowhere"}, "ocpp.unknown-listener"),
    ],
)
async def test_settings_that_cannot_be_kept_are_refused_before_anything_opens(settings: dict, code: str):
    with pytest.raises(ConfigError) as refused:
        ADAPTER.open(a_context(FakeGate(), SystemClock(), a_station(**settings)))
    assert refused.value.problems[0].code == code


async def test_an_option_out_of_range_is_refused():
    with pytest.raises(ConfigError):
        ADAPTER.open(a_context(FakeGate(), SystemClock(), a_station(), options={"heartbeat_s": 1}))


async def test_a_certificate_opens_its_own_station_and_no_other(dev_pki: DevPki):
    gate = FakeGate()
    listener = dev_pki.settings("ocpp")
    stations = (a_station(profile=3, listener="ocpp"), a_station("CP-2", profile=3, listener="ocpp"))
    context = client_context(dev_pki.stations["CP-1"])
    async with a_gateway(gate, *stations, listeners={"ocpp": listener}) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, "CP-2", ssl=context):
                pass
        async with a_socket(running, ssl=context) as socket:
            boot = BOOT | {"chargePointSerialNumber": "SN-CP-1"}
            assert (await call(socket, "BootNotification", boot))[2]["status"] == "Accepted"
        anonymous = client_context(dataclasses.replace(dev_pki.stations["CP-1"], certificate=None, key=None))
        # Under TLS 1.3 a refused client learns it from whatever breaks first.
        with pytest.raises((OSError, InvalidHandshake)):
            async with a_socket(running, ssl=anonymous):
                pass
    assert status_of(refused)[0] == 403
    assert gate.of(StationNoted)[0].message.actor.cert_sha256


# --- one connection per station ------------------------------------------------------------


async def test_a_second_connection_replaces_the_first():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running, a_socket(running) as first:
        await until(lambda: running.connected)
        running.apply(a_command(generation=1))
        async with a_socket(running) as second:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await first.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "replaced")
            assert (await call(second, "Heartbeat", {}))[0] == 3
            assert dict(running.connected) == {"CP-1": 2}
    lines = [e for e in gate.events if isinstance(e, (StationConnected, StationDisconnected))]
    assert [(type(e), e.generation) for e in lines][:3] == [
        (StationConnected, 1),
        (StationDisconnected, 1),
        (StationConnected, 2),
    ]
    assert len(gate.of(CommandAnswered)) == 1


async def test_generations_survive_a_restart():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b'{"periods":1,"max_level":1,"unit":"A"}'})
    for _ in range(3):
        async with a_gateway(gate, a_station()) as running, a_socket(running):
            await until(lambda: running.connected)
    assert [e.generation for e in gate.of(StationConnected)] == [1, 2, 3]
    assert [e.generation for e in gate.of(StationDisconnected)] == [1, 2, 3]
    assert gate.rows["generation/CP-1"] == b"3"


# --- durability ----------------------------------------------------------------------------


async def test_nothing_is_acknowledged_that_is_not_stored():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running, a_socket(running) as socket:
        await until(lambda: running.connected)
        gate.broken = True
        assert (await call(socket, "StartTransaction", START))[:3] == [4, "1", "InternalError"]
        gate.broken = False
        first = await call(socket, "StartTransaction", START, "2")
        again = await call(socket, "StartTransaction", START, "3")
        assert first[2] == again[2]
        assert 0 < first[2]["transactionId"] < 2**31
    assert len(gate.of(SessionStarted)) == 1


async def test_a_transaction_survives_a_restart_of_ours():
    gate = FakeGate(rows={"boot/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running, a_socket(running) as socket:
        number = (await call(socket, "StartTransaction", START))[2]["transactionId"]
    async with a_gateway(gate, a_station()) as running, a_socket(running) as socket:
        stop = {"transactionId": number, "meterStop": 5, "timestamp": "2031-03-01T18:00:00Z"}
        assert (await call(socket, "StopTransaction", stop))[0] == 3
    assert [e.transaction for e in gate.of(SessionEnded)] == [str(number)]
    assert not [key for key in gate.rows if key.startswith("tx/")]


async def test_a_reused_key_with_another_body_is_not_lost():
    gate = FakeGate(rows={"boot/CP-1": b"{}"})
    event = {
        "eventType": "Started",
        "timestamp": "2031-03-01T17:00:00Z",
        "triggerReason": "CablePluggedIn",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "tx"},
        "evse": {"id": 1},
    }
    async with a_gateway(gate, a_station()) as running, a_socket(running, "CP-1", "ocpp2.0.1") as socket:
        await call(socket, "TransactionEvent", event)
        ended = event | {"eventType": "Ended", "triggerReason": "EVDeparted"}
        assert (await call(socket, "TransactionEvent", ended, "2"))[0] == 3
    assert [e.transaction for e in gate.of(SessionEnded)] == ["tx"]


async def test_a_slow_commit_of_one_station_stalls_no_other():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "boot/CP-2": b"{}"})
    gate.held["CP-1"] = asyncio.Event()
    async with a_gateway(gate, a_station(), a_station("CP-2")) as running:
        async with a_socket(running) as slow, a_socket(running, "CP-2") as quick:
            await slow.send(json.dumps([2, "1", "StartTransaction", START]))
            assert (await call(quick, "StartTransaction", START))[0] == 3
            gate.held["CP-1"].set()
            async with asyncio.timeout(PATIENCE_S):
                while json.loads(await slow.recv())[0] != 3:
                    pass


async def test_our_call_is_answered_while_a_commit_of_that_station_is_slow():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running, a_socket(running) as socket:
        await until(lambda: running.connected)
        gate.held["CP-1"] = asyncio.Event()
        await socket.send(json.dumps([2, "1", "StartTransaction", START]))
        running.apply(a_command(generation=1, tightens=True))
        obeying = asyncio.create_task(obey_everything(socket))
        await until(lambda: gate.of(CommandAnswered))
        obeying.cancel()
        gate.held["CP-1"].set()
    assert gate.of(CommandAnswered)[0].outcome is Outcome.ACCEPTED


# --- limits --------------------------------------------------------------------------------


async def test_limits_for_an_absent_station_or_an_old_line_are_not_sent():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running:
        running.apply(a_command("absent"))
        assert gate.of(CommandAnswered) == []
        await until(lambda: gate.of(CommandAnswered))
        async with a_socket(running):
            await until(lambda: running.connected)
            running.apply(a_command("old", generation=99))
            await until(lambda: len(gate.of(CommandAnswered)) == 2)
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.NOT_SENT, Outcome.NOT_SENT]


async def test_a_command_given_while_the_line_is_being_announced_is_sent():
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    async with a_gateway(gate, a_station()) as running:

        def obey(event: Event) -> None:
            if isinstance(event, StationConnected):
                running.apply(a_command(generation=event.generation))

        gate.on_event = obey
        async with a_socket(running) as socket:
            async with asyncio.timeout(PATIENCE_S):
                assert json.loads(await socket.recv())[2] == "SetChargingProfile"
        await until(lambda: gate.of(CommandAnswered))
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.DISCONNECTED]
    assert isinstance(gate.events[-1], StationDisconnected)


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_a_station_is_limited_end_to_end(version: str):
    gate, clock = FakeGate(), ManualClock(T0)
    async with a_gateway(gate, a_station(), clock=clock) as running:
        station = SimulatedStation(
            "CP-1", serial="SN-CP-1", url=f"ws://127.0.0.1:{running.ports['lab']}", clock=clock, version=version
        )
        await station.start()
        try:
            await until(lambda: running.connected)
            running.apply(a_command("share", limit_w=5_000))
            station.plug_in(Car(energy_wh=10_000, max_w=11_000))
            await until(lambda: gate.of(SessionStarted) and gate.of(CommandAnswered))
            assert station.limit_a() == 6.5
            transaction = gate.of(SessionStarted)[0].transaction
            await until(lambda: station.outlets[1].transaction == transaction)
            schedule = falling(clock.now(), (0, 11_000), (30, 5_000))
            running.apply(a_command("session", layer=Layer.SESSION, schedule=schedule, transaction=transaction))
            await until(lambda: station.limit_a() == 14.4)
            await clock.advance(30)
            assert station.limit_a() == 6.5
            await clock.advance(station.meter_interval_s)
            await until(lambda: any(s.value == 4485 for s in gate.samples))
            station.unplug()
            await until(lambda: gate.of(SessionEnded))
        finally:
            await station.stop()
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.ACCEPTED] * 2
    assert station.power_w() == 0


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_a_limit_that_follows_a_start_at_once_finds_its_transaction(version: str):
    gate = FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})
    clock = SystemClock()
    async with a_gateway(gate, a_station(), clock=clock) as running:

        def obey(event: Event) -> None:
            if isinstance(event, SessionStarted):
                tx = event.transaction
                running.apply(a_command(layer=Layer.SESSION, limit_w=8_000, transaction=tx))

        gate.on_event = obey
        station = SimulatedStation(
            "CP-1", serial="SN-CP-1", url=f"ws://127.0.0.1:{running.ports['lab']}", clock=clock, version=version
        )
        await station.start()
        try:
            await until(lambda: running.connected)
            station.plug_in(Car(energy_wh=10_000, max_w=11_000))
            await until(lambda: gate.of(CommandAnswered))
            assert station.limit_a() == 10.5
        finally:
            await station.stop()
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.ACCEPTED]


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_an_offline_station_keeps_charging_by_its_profiles_and_tells_later(version: str):
    gate, clock = FakeGate(), StoryClock.starting(T0, 60)
    async with a_gateway(gate, a_station(), clock=clock) as running:
        station = SimulatedStation(
            "CP-1", serial="SN-CP-1", url=f"ws://127.0.0.1:{running.ports['lab']}", clock=clock, version=version
        )
        await station.start()
        try:
            await until(lambda: running.connected)
            running.apply(a_command(limit_w=5_000))
            await until(lambda: gate.of(CommandAnswered))
            await station.offline()
            station.plug_in(Car(energy_wh=10_000, max_w=11_000))
            assert station.power_w() == 4485
            station.unplug()
            station.online()
            await until(lambda: gate.of(SessionEnded))
        finally:
            await station.stop()
    assert [s.transaction for s in gate.of(SessionStarted)] == [s.transaction for s in gate.of(SessionEnded)]
    assert [e.generation for e in gate.of(StationConnected)] == [1, 2]


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_a_profile_of_somebody_else_that_allows_more_is_gone_after_the_first_limit(version: str):
    gate, clock = FakeGate(), SystemClock()
    async with a_gateway(gate, a_station(), clock=clock) as running:
        station = SimulatedStation(
            "CP-1", serial="SN-CP-1", url=f"ws://127.0.0.1:{running.ports['lab']}", clock=clock, version=version
        )
        foreign = Profile(5, 1, "default", 3, None, T0 - timedelta(days=2_000), "A", ((0, 32.0, 3),))
        assert station.profiles.install(foreign, None) == ""
        await station.start()
        try:
            await until(lambda: running.connected)
            running.apply(a_command(limit_w=5_000))
            await until(lambda: gate.of(CommandAnswered))
            await until(lambda: [p.id for p in station.profiles.held] == [900_002])
            assert station.limit_a() == 6.5
        finally:
            await station.stop()
    assert [a.outcome for a in gate.of(CommandAnswered)] == [Outcome.ACCEPTED]
    assert gate.of(ClaimRefuted) == []


async def test_the_key_for_pseudonyms_is_made_once():
    gate = FakeGate()
    keys = []
    for _ in range(2):
        async with a_gateway(gate, a_station()):
            keys.append(gate.adapter_rows(ROWS)["user-key"])
    assert keys[0] == keys[1]
    assert len(keys[0]) == 32
