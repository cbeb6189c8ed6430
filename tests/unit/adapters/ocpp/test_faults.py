"""Bad input on real sockets: the protocol's own answer, a record, and no other effect."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from adapters.ocpp.transport import STRANGERS_BURST, OcppRunning
from adapters.ocpp.wire import Version
from gateway.domain.events import MessageRefused, StationConnected, StationDisconnected
from gateway.kit.tls import client_context
from gateway.pki.dev import DevPki, make_dev_pki
from gateway.ports.adapter import ClientIdentity, Trust
from tests.support.ocpp import PATIENCE_S, FakeGate, a_station, until
from tests.support.ocpp_socket import a_gateway, a_socket, basic, call, status_of

pytestmark = pytest.mark.anyio

SECRET = b"sixteen bytes at least"
DIGEST = hashlib.sha256(SECRET).hexdigest()
STATUS = {
    Version.V16: {"connectorId": 1, "errorCode": "NoError", "status": "Available"},
    Version.V201: {
        "timestamp": "2031-03-01T17:00:00Z",
        "connectorStatus": "Available",
        "evseId": 1,
        "connectorId": 1,
    },
}


def a_call(version: Version, **changed: object) -> str:
    """A StatusNotification with some of its fields changed; None takes one away."""
    payload = {key: value for key, value in (STATUS[version] | changed).items() if value is not None}
    return json.dumps([2, "a", "StatusNotification", payload])


def status_word(version: Version) -> str:
    return "status" if version is Version.V16 else "connectorStatus"


FAULTS = {
    "bad JSON": lambda v: '[2,"a","Heartbeat",{',
    "no array": lambda v: '{"a":1}',
    "an empty array": lambda v: "[]",
    "an unknown message type": lambda v: '[9,"a","Heartbeat",{}]',
    "a message type in quotes": lambda v: '["2","a","Heartbeat",{}]',
    "an id that is none": lambda v: '[2,null,"Heartbeat",{}]',
    "no action": lambda v: '[2,"a"]',
    "an action that is no text": lambda v: '[2,"a",7,{}]',
    "a payload that is a list": lambda v: '[2,"a","Heartbeat",[]]',
    "an unknown action": lambda v: '[2,"a","Dance",{}]',
    "an action of ours": lambda v: '[2,"a","ClearCache",{}]',
    "a wrong type": lambda v: a_call(v, connectorId="one"),
    "a missing field": lambda v: a_call(v, connectorId=None),
    "a word that does not exist": lambda v: a_call(v, **{status_word(v): "Dancing"}),
    "a text that is too long": lambda v: json.dumps([2, "a", "DataTransfer", {"vendorId": "x" * 256}]),
    "an answer to nothing": lambda v: '[3,"zz",{}]',
    "an error to nothing": lambda v: '[4,"zz","GenericError","",{}]',
    "an answer with an id that is none": lambda v: "[3,null,{}]",
}

SILENCE = None
ANSWERS: dict[str, tuple[tuple[str, str] | None, tuple[str, str] | None]] = {
    "bad JSON": (SILENCE, ("-1", "RpcFrameworkError")),
    "no array": (SILENCE, ("-1", "RpcFrameworkError")),
    "an empty array": (SILENCE, ("-1", "RpcFrameworkError")),
    "an unknown message type": (SILENCE, ("a", "MessageTypeNotSupported")),
    "a message type in quotes": (SILENCE, ("a", "MessageTypeNotSupported")),
    "an id that is none": (SILENCE, ("-1", "RpcFrameworkError")),
    "no action": (("a", "ProtocolError"), ("a", "RpcFrameworkError")),
    "an action that is no text": (("a", "ProtocolError"), ("a", "RpcFrameworkError")),
    "a payload that is a list": (("a", "FormationViolation"), ("a", "FormatViolation")),
    "an unknown action": (("a", "NotImplemented"), ("a", "NotImplemented")),
    "an action of ours": (("a", "NotSupported"), ("a", "NotSupported")),
    "a wrong type": (("a", "TypeConstraintViolation"), ("a", "TypeConstraintViolation")),
    "a missing field": (("a", "ProtocolError"), ("a", "OccurrenceConstraintViolation")),
    "a word that does not exist": (("a", "PropertyConstraintViolation"), ("a", "PropertyConstraintViolation")),
    "a text that is too long": (("a", "PropertyConstraintViolation"), ("a", "PropertyConstraintViolation")),
    "an answer to nothing": (SILENCE, SILENCE),
    "an error to nothing": (SILENCE, SILENCE),
    "an answer with an id that is none": (SILENCE, SILENCE),
}
"""What comes back, 1.6 and 2.0.1: id and code of a CALLERROR, or nothing."""


def a_known_gate() -> FakeGate:
    return FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}"})


def test_every_fault_has_its_answer():
    assert FAULTS.keys() == ANSWERS.keys()


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_framing_fault_gets_its_answer_and_a_record_and_nothing_else(version: Version, fault: str):
    gate = a_known_gate()
    async with a_gateway(gate, a_station()) as running, a_socket(running, "CP-1", version.value) as socket:
        await until(lambda: running.connected)
        events, rows, inbox = len(gate.events), dict(gate.rows), dict(gate.inbox)
        await socket.send(FAULTS[fault](version))
        expected = ANSWERS[fault][list(Version).index(version)]
        if expected is not SILENCE:
            async with asyncio.timeout(PATIENCE_S):
                while (frame := json.loads(await socket.recv()))[0] == 2:
                    pass
            assert (frame[0], frame[1], frame[2]) == (4, *expected)
            assert len(frame) == 5
        # It is in order that answers leave: had there been one, it would come before this.
        assert (await call(socket, "Heartbeat", {}, "beat"))[:2] == [3, "beat"]
        (refused,) = gate.events[events:]
        assert isinstance(refused, MessageRefused)
        assert refused.text
        assert expected is SILENCE or refused.code == expected[1]
        assert (gate.rows, gate.inbox, gate.samples) == (rows, inbox, [])


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize(
    ("frame", "code"),
    [("[" + " " * 70_000 + "]", "1009"), (b"\xff\xfe", "1007")],
    ids=["a frame above 64 KiB", "text that is no UTF-8"],
)
async def test_what_websocket_itself_refuses_ends_the_connection_and_is_recorded(
    version: Version, frame: str | bytes, code: str
):
    gate = a_known_gate()
    async with a_gateway(gate, a_station()) as running, a_socket(running, "CP-1", version.value) as socket:
        await until(lambda: running.connected)
        await socket.send(frame, text=True)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert str(closed.value.rcvd.code) == code
        await until(lambda: gate.of(StationDisconnected))
    assert [r.code for r in gate.of(MessageRefused)] == [code]


async def test_before_its_boot_a_201_station_changes_nothing():
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running, a_socket(running, "CP-1", "ocpp2.0.1") as socket:
        answer = await call(socket, "StatusNotification", STATUS[Version.V201])
        assert answer[2] == "SecurityError"
    assert [r.code for r in gate.of(MessageRefused)] == ["SecurityError"]
    assert gate.events == gate.of(MessageRefused)


async def test_no_common_subprotocol_is_recorded():
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running, a_socket(running, "CP-1", "ocpp1.5") as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert [(r.code, r.text) for r in gate.events] == [("1002", "no common subprotocol")]


# --- who is not let in ------------------------------------------------------------------------


async def test_an_unknown_station_is_refused_and_recorded():
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, "CP-9"):
                pass
    assert status_of(refused)[0] == 404
    assert [(r.code, r.message.peer, r.text) for r in gate.events] == [("404", "unknown", "no station 'CP-9' here")]


async def test_whoever_tries_many_names_fills_no_evidence():
    gate = FakeGate()
    async with a_gateway(gate, a_station()) as running:
        for number in range(30):
            with pytest.raises(InvalidStatus):
                async with a_socket(running, f"X-{number}"):
                    pass
    assert STRANGERS_BURST <= len(gate.events) <= STRANGERS_BURST + 5


async def test_a_certificate_of_another_station_is_403_and_recorded(dev_pki: DevPki):
    gate = FakeGate()
    stations = (a_station(profile=3, listener="ocpp"), a_station("CP-2", profile=3, listener="ocpp"))
    async with a_gateway(gate, *stations, listeners={"ocpp": dev_pki.settings("ocpp")}) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, "CP-2", ssl=client_context(dev_pki.stations["CP-1"])):
                pass
    assert status_of(refused)[0] == 403
    (record,) = gate.events
    assert (record.code, record.text, record.message.peer) == ("403", "certificate of another station", "CP-2")
    assert record.message.actor.cert_sha256


@pytest.mark.parametrize("kind", ["of a stranger's CA", "missing"])
async def test_a_certificate_that_tls_refuses_is_recorded(dev_pki: DevPki, tmp_path: Path, kind: str):
    gate = FakeGate()
    ours = dev_pki.stations["CP-1"]
    shown = dataclasses.replace(ours, certificate=None, key=None)
    if kind != "missing":
        foreign = make_dev_pki(tmp_path, site="other", now=datetime.now(UTC), stations=[("CP-1", "SN-CP-1")])
        shown = dataclasses.replace(foreign.stations["CP-1"], server_ca=ours.server_ca)
    station = a_station(profile=3, listener="ocpp")
    async with a_gateway(gate, station, listeners={"ocpp": dev_pki.settings("ocpp")}) as running:
        with pytest.raises((OSError, InvalidHandshake)):
            async with a_socket(running, ssl=client_context(shown)):
                pass
        await until(lambda: gate.events)
    assert [(type(r), r.code, r.message.peer) for r in gate.events] == [(MessageRefused, "tls", "unknown")]


@pytest.mark.parametrize("profile", [1, 2])
@pytest.mark.parametrize("header", [{}, basic("CP-1", b"wrong"), basic("CP-2", SECRET)], ids=["none", "wrong", "other"])
async def test_wrong_credentials_are_401_and_recorded(dev_pki: DevPki, profile: int, header: dict[str, str]):
    gate = FakeGate()
    async with a_basic_gateway(gate, dev_pki, profile) as (running, more):
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, additional_headers=header, **more):
                pass
    assert status_of(refused)[0] == 401
    assert refused.value.response.headers["WWW-Authenticate"] == 'Basic realm="ocpp"'
    assert [(r.code, r.text) for r in gate.events] == [("401", "wrong credentials")]


@pytest.mark.parametrize("profile", [1, 2])
async def test_the_right_credentials_open_profiles_one_and_two(dev_pki: DevPki, profile: int):
    gate = a_known_gate()
    async with a_basic_gateway(gate, dev_pki, profile) as (running, more):
        async with a_socket(running, additional_headers=basic("CP-1", SECRET), **more) as socket:
            assert (await call(socket, "Heartbeat", {}))[0] == 3
    assert gate.of(MessageRefused) == []


async def test_a_password_opens_nothing_where_a_certificate_is_asked_for(dev_pki: DevPki):
    gate = FakeGate()
    station = a_station(profile=3, listener="ocpp", password_sha256=DIGEST)
    anonymous = dataclasses.replace(dev_pki.stations["CP-1"], certificate=None, key=None)
    async with a_gateway(gate, station, listeners={"ocpp": dev_pki.settings("ocpp")}) as running:
        with pytest.raises((OSError, InvalidHandshake)):
            async with a_socket(running, ssl=client_context(anonymous), additional_headers=basic("CP-1", SECRET)):
                pass


# --- a second connection ----------------------------------------------------------------------


async def test_a_second_certificate_waits_for_the_first_to_fall_silent(tmp_path: Path):
    gate = a_known_gate()
    pki, renewed = two_certificates(tmp_path)
    station = a_station(profile=3, listener="ocpp")
    async with a_gateway(gate, station, listeners={"ocpp": pki.settings("ocpp")}) as running:
        async with a_socket(running, ssl=client_context(pki.stations["CP-1"])) as first:
            await until(lambda: running.connected)
            async with a_socket(running, ssl=client_context(renewed)) as second:
                with pytest.raises(ConnectionClosed) as closed:
                    await second.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "already connected")
            assert (await call(first, "Heartbeat", {}))[0] == 3
    assert [r.code for r in gate.of(MessageRefused)] == ["1008"]
    assert [e.generation for e in gate.of(StationConnected)] == [1]


async def test_a_second_certificate_takes_the_place_of_a_silent_first(tmp_path: Path):
    gate = a_known_gate()
    pki, renewed = two_certificates(tmp_path)
    station = a_station(profile=3, listener="ocpp")
    async with a_gateway(gate, station, listeners={"ocpp": pki.settings("ocpp")}) as running:
        async with a_socket(running, ssl=client_context(pki.stations["CP-1"]), ping_interval=None) as first:
            await until(lambda: running.connected)
            # Whoever does not read does not answer a ping either.
            first.transport.pause_reading()
            async with a_socket(running, ssl=client_context(renewed)) as second:
                assert (await call(second, "Heartbeat", {}))[0] == 3
                assert dict(running.connected) == {"CP-1": 2}
            first.transport.resume_reading()
    assert [r.code for r in gate.of(MessageRefused)] == ["1008"]
    assert gate.of(StationDisconnected)[0].cause == "replaced"


def two_certificates(folder: Path) -> tuple[DevPki, ClientIdentity]:
    """A tree of certificates, and a second one for the same serial number."""
    now = datetime.now(UTC)
    first = make_dev_pki(folder, site="s", now=now, stations=[("CP-1", "SN-CP-1")]).stations["CP-1"]
    assert first.certificate is not None
    assert first.key is not None
    kept = ClientIdentity(folder / "kept.pem", folder / "kept.key", first.server_ca)
    first.certificate.rename(folder / "kept.pem")
    first.key.rename(folder / "kept.key")
    return make_dev_pki(folder, site="s", now=now, stations=[("CP-1", "SN-CP-1")]), kept


@asynccontextmanager
async def a_basic_gateway(
    gate: FakeGate, pki: DevPki, profile: int
) -> AsyncIterator[tuple[OcppRunning, dict[str, ssl.SSLContext]]]:
    """A listener for HTTP Basic, in the clear (1) or over TLS (2), and how to connect to it."""
    tls = profile == 2
    settings = dataclasses.replace(
        pki.settings("ocpp"), name="basic", trust=Trust.SERVER_TLS if tls else Trust.INSECURE, client_ca=None
    )
    station = a_station(profile=profile, listener="basic", password_sha256=DIGEST)
    anonymous = dataclasses.replace(pki.stations["CP-1"], certificate=None, key=None)
    async with a_gateway(gate, station, listeners={"basic": settings}) as running:
        yield running, {"ssl": client_context(anonymous)} if tls else {}
