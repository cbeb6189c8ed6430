"""Stations that nobody configured: remembered, let in for a place, sent away again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from adapters.ocpp.admission import Proof
from adapters.ocpp.core import OpenTransaction
from adapters.ocpp.newcomers import MAX_KNOCKS, SAVES_BURST, Newcomers
from gateway.domain.errors import ActionRefused, StoreError
from gateway.domain.events import OperatorActed, OperatorAction, SessionEnded, StationConnected, StationNoted
from gateway.domain.evidence import Actor, MessageRef
from gateway.domain.ids import NodeId, PeerId, StationId
from gateway.kit.tls import client_context
from gateway.pki.dev import DevPki
from gateway.ports.fleet import StationSettings
from gateway.ports.gate import Inbound
from gateway.testing.clock import ManualClock
from tests.support.ocpp import T0, FakeGate, a_binding, a_station, until
from tests.support.ocpp_socket import a_gateway, a_socket, call, status_of

pytestmark = pytest.mark.anyio

NEW = StationId("NEW-7")
BY_CERTIFICATE = Proof(3, "SN-7", "ab" * 32)
BY_PASSWORD = Proof(2, "", "12345678", "12345678" * 8)
FIRST, SECOND = NodeId("main/evse-1"), NodeId("main/evse-2")
BOOT = {"chargePointVendor": "v", "chargePointModel": "m", "chargePointSerialNumber": "SN-CP-1"}


@dataclass
class Site:
    """Newcomers beside CP-1 with EVSE 1 and CP-2 with EVSE 2, both known by certificate."""

    gate: FakeGate = field(default_factory=FakeGate)
    live: set[str] = field(default_factory=set)
    vacated: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    clock: ManualClock = field(default_factory=lambda: ManualClock(T0))
    profile: int = 3

    def __post_init__(self) -> None:
        self.newcomers = self.started()

    def started(self) -> Newcomers:
        first = a_station("CP-1", profile=self.profile, listener="ocpp")
        second = dataclasses.replace(
            a_station("CP-2", profile=self.profile, listener="ocpp"),
            evses=(dataclasses.replace(a_binding(2), number=1),),
        )

        async def vacate(station: StationId, cause: str) -> None:
            self.vacated.append(f"{station} {cause}")

        return Newcomers(
            self.gate,
            self.clock,
            (first, second),
            is_live=lambda station: station in self.live,
            vacate=vacate,
            renewed=self.renewed.append,
        )

    def knocks(self, name: str = NEW, proof: Proof = BY_CERTIFICATE, listener: str = "ocpp") -> None:
        self.newcomers.knocked(StationId(name), listener, "10.0.0.7", proof)

    async def approve(self, name: str = NEW, evse: NodeId = FIRST, credential: str = BY_CERTIFICATE.credential) -> None:
        await self.newcomers.approve(*acted(OperatorAction.APPROVE, name), evse, credential)

    async def revoke(self, name: str = NEW) -> None:
        await self.newcomers.revoke(*acted(OperatorAction.REVOKE, name))

    def door(self, name: str, listener: str = "ocpp") -> StationSettings | None:
        return self.newcomers.station(StationId(name), listener)


def acted(action: OperatorAction, name: str) -> tuple[OperatorActed, Inbound]:
    actor = Actor("operator", "urn:gridgate:operator:alice", "admin")
    message = MessageRef(PeerId("alice"), f"admin/{action.value}/{name}", f"{action.value} {name}", T0, actor=actor)
    inbound = Inbound(message.peer, message.endpoint, message.message_id, b"{}", T0)
    return OperatorActed(action, name, "replaced after a fault", message), inbound


async def test_who_knocks_is_remembered_once_with_when_and_how_often() -> None:
    site = Site()
    site.knocks()
    await site.clock.advance(90)
    site.knocks()
    [seen] = site.newcomers.newcomers()
    assert (seen.station, seen.serial, seen.listener, seen.profile) == (NEW, "SN-7", "ocpp", 3)
    assert (seen.times, seen.first_at, seen.last_at) == (2, T0, T0 + timedelta(seconds=90))
    assert (seen.credential, seen.address) == ("ab" * 32, "10.0.0.7")
    assert site.door(NEW) is None


async def test_a_renewed_certificate_is_the_same_newcomer_and_another_serial_is_another() -> None:
    site = Site()
    site.knocks()
    site.knocks(proof=Proof(3, "SN-7", "cd" * 32))
    site.knocks(proof=Proof(3, "SN-8", "ef" * 32))
    assert [(n.serial, n.credential, n.times) for n in site.newcomers.newcomers()] == [
        ("SN-7", "cd" * 32, 2),
        ("SN-8", "ef" * 32, 1),
    ]


async def test_memory_is_bounded_per_listener_and_keeps_the_newest() -> None:
    site = Site()
    site.knocks()
    for number in range(MAX_KNOCKS + 5):
        await site.clock.advance(1)
        site.knocks(f"X-{number}", BY_PASSWORD, "basic")
    seen = [n.station for n in site.newcomers.newcomers()]
    assert len(seen) == MAX_KNOCKS + 1
    assert NEW in seen
    assert "X-4" not in seen
    assert seen[0] == f"X-{MAX_KNOCKS + 4}"
    await site.newcomers.flush()
    assert len([key for key in site.gate.rows if key.startswith("unknown/")]) == MAX_KNOCKS + 1


async def test_what_is_remembered_survives_a_restart_and_writes_little() -> None:
    site = Site()
    for _ in range(1_000):
        site.knocks()
    await site.newcomers.flush()
    assert [n.times for n in site.started().newcomers()] == [1_000]
    assert len(site.gate.events) == 0


async def test_a_crowd_of_strangers_does_not_keep_the_store_busy() -> None:
    site = Site()
    writes: list[int] = []
    submit = site.gate.submit

    async def counted(*args: object, **more: object) -> object:
        writes.append(1)
        return await submit(*args, **more)

    site.gate.submit = counted
    for number in range(500):
        site.knocks(f"X-{number}")
        await until(lambda: site.newcomers._saving is None)
    assert len(writes) <= SAVES_BURST


async def test_a_store_that_fails_is_tried_again() -> None:
    site = Site(gate=FakeGate(broken=True))
    site.knocks()
    await site.newcomers.flush()
    assert site.gate.rows == {}
    site.gate.broken = False
    await site.newcomers.flush()
    assert len(site.gate.rows) == 1


async def test_an_approval_gives_the_place_and_says_everything_in_evidence() -> None:
    running = msgspec.json.encode(OpenTransaction(1, "2031-03-01T16:00:00Z"))
    site = Site(gate=FakeGate(rows={"boot/CP-1": b"{}", "capability/CP-1": b"{}", "generation/CP-1": b"4"}))
    site.gate.rows["tx/CP-1/a/b"] = running
    site.gate.rows["boot/CP-10"] = b"{}"
    site.knocks()
    await site.approve()
    door = site.door(NEW)
    assert door is not None
    assert (door.id, door.serial, door.profile, door.evses[0].evse) == ("CP-1", "SN-7", 3, FIRST)
    assert site.newcomers.name_of(door) == NEW
    assert site.door("CP-1") is None
    assert site.door("CP-2") is not None
    assert site.newcomers.newcomers() == []
    [told] = site.gate.of(OperatorActed)
    assert told.evses == (FIRST,)
    assert dict(told.detail) == {
        "place": "CP-1", "serial": "SN-7", "listener": "ocpp", "profile": "3", "credential": "ab" * 32,
    }  # fmt: skip
    [ended] = site.gate.of(SessionEnded)
    assert (ended.evse, ended.transaction, ended.reason) == (FIRST, "a/b", "station.approve")
    assert {key for key in site.gate.rows if not key.startswith("unknown/")} == {
        "generation/CP-1", "boot/CP-10", "approved/CP-1",
    }  # fmt: skip
    assert site.renewed == ["CP-1"]


async def test_an_approval_holds_after_a_restart_until_it_is_revoked() -> None:
    site = Site()
    site.knocks()
    await site.approve()
    site.newcomers = site.started()
    [approval] = site.newcomers.approvals()
    assert (approval.station, approval.place, approval.operator) == (NEW, "CP-1", "urn:gridgate:operator:alice")
    assert (approval.reason, approval.approved_at) == ("replaced after a fault", T0)
    assert site.door(NEW) is not None
    await site.revoke()
    for newcomers in (site.newcomers, site.started()):
        assert newcomers.approvals() == []
        assert newcomers.station(NEW, "ocpp") is None
        assert newcomers.station(StationId("CP-1"), "ocpp") is not None
    assert site.vacated == ["CP-1 revoked"]
    assert [told.evses for told in site.gate.of(OperatorActed)] == [(FIRST,), (FIRST,)]


async def test_a_new_box_under_the_old_name_is_approved_like_any_other() -> None:
    site = Site()
    site.knocks("CP-1", Proof(3, "SN-NEW", "cd" * 32))
    await site.approve("CP-1", FIRST, "cd" * 32)
    door = site.door("CP-1")
    assert door is not None
    assert door.serial == "SN-NEW"


@pytest.mark.parametrize(
    ("knock", "wish", "words"),
    [
        ((NEW, BY_CERTIFICATE), ("NEW-8", FIRST, "ab" * 32), "no station NEW-8 knocked"),
        ((NEW, BY_CERTIFICATE), (NEW, FIRST, "cd" * 32), "with credential"),
        ((NEW, BY_CERTIFICATE), (NEW, NodeId("main"), "ab" * 32), "no EVSE of a station"),
        ((NEW, BY_PASSWORD), (NEW, FIRST, "12345678"), "by security profile 3, NEW-7 by 2"),
        (("CP-2", BY_CERTIFICATE), ("CP-2", FIRST, "ab" * 32), "CP-2 has a place already"),
        ((NEW, BY_CERTIFICATE), (NEW, SECOND, "ab" * 32), "CP-2 is connected"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused_and_changes_nothing(
    knock: tuple[str, Proof], wish: tuple[str, NodeId, str], words: str
) -> None:
    site = Site(live={"CP-2"})
    site.knocks(*knock)
    with pytest.raises(ActionRefused, match=words):
        await site.approve(*wish)
    assert site.newcomers.approvals() == []
    assert site.gate.of(OperatorActed) == []
    assert site.door("CP-1") is not None


async def test_one_place_is_given_once_and_one_newcomer_takes_one() -> None:
    site = Site()
    for name in (NEW, "NEW-8"):
        site.knocks(name)
    await site.approve()
    site.knocks(proof=Proof(3, "SN-9", "cd" * 32))
    with pytest.raises(ActionRefused, match="is that of NEW-7"):
        await site.approve("NEW-8")
    with pytest.raises(ActionRefused, match="NEW-7 has a place already"):
        await site.approve(NEW, SECOND, "cd" * 32)
    with pytest.raises(ActionRefused, match="never approved"):
        await site.revoke("NEW-8")


async def test_what_is_not_stored_is_not_so() -> None:
    site = Site()
    site.knocks()
    await site.newcomers.flush()
    site.gate.broken = True
    with pytest.raises(StoreError):
        await site.approve()
    assert site.door(NEW) is None
    assert site.door("CP-1") is not None
    assert [n.station for n in site.newcomers.newcomers()] == [NEW]
    site.gate.broken = False
    await site.approve()
    site.gate.broken = True
    with pytest.raises(StoreError):
        await site.revoke()
    assert site.door(NEW) is not None


async def test_an_approval_for_a_place_that_is_configured_no_more_can_still_be_revoked() -> None:
    site = Site()
    site.knocks()
    await site.approve()
    site.newcomers = Newcomers(
        site.gate, site.clock, (), is_live=lambda _s: False, vacate=lambda *_: pytest.fail(), renewed=pytest.fail
    )
    assert site.door(NEW) is None
    assert [a.place for a in site.newcomers.approvals()] == ["CP-1"]
    await site.revoke()
    assert site.newcomers.approvals() == []


async def test_a_newcomer_that_is_configured_by_now_is_what_the_file_says() -> None:
    site = Site()
    site.knocks()
    await site.approve()
    place, own = a_station("CP-1", profile=3, listener="ocpp"), a_station(NEW, profile=3, listener="ocpp", evses=2)
    for stations in ((place, own), (own, place)):
        now = Newcomers(
            site.gate, site.clock, stations, is_live=lambda _s: False, vacate=lambda *_: pytest.fail(), renewed=id
        )
        assert now.station(NEW, "ocpp") is own
        assert now.station(StationId("CP-1"), "ocpp") is place
        assert now.name_of(place) == "CP-1"


async def test_a_password_over_tls_is_enough_where_the_place_asks_for_no_more() -> None:
    site = Site(profile=2)
    site.knocks(proof=BY_PASSWORD, listener="basic")
    await site.approve(credential="12345678")
    door = site.door(NEW, "basic")
    assert door is not None
    assert (door.profile, door.password_sha256) == (2, BY_PASSWORD.password_sha256)
    assert "password" not in str(site.newcomers.approvals())
    assert BY_PASSWORD.password_sha256 not in str(site.gate.of(OperatorActed))


async def test_over_tls_a_newcomer_is_refused_approved_served_and_cut_off(dev_pki: DevPki) -> None:
    gate = FakeGate()
    context = client_context(dev_pki.stations["CP-1"])
    place = a_station("CP-2", profile=3, listener="ocpp")
    async with a_gateway(gate, place, listeners={"ocpp": dev_pki.settings("ocpp")}) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, NEW, ssl=context):
                pass
        assert status_of(refused)[0] == 404
        [seen] = running.admissions.newcomers()
        assert (seen.station, seen.serial, seen.times) == (NEW, "SN-CP-1", 1)
        await running.admissions.approve(*acted(OperatorAction.APPROVE, NEW), FIRST, seen.credential)
        async with a_socket(running, NEW, ssl=context) as socket:
            assert (await call(socket, "BootNotification", BOOT))[2]["status"] == "Accepted"
            [boot] = gate.of(StationNoted)
            assert (boot.station, boot.message.actor.principal) == ("CP-2", NEW)
            await running.admissions.revoke(*acted(OperatorAction.REVOKE, NEW))
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "revoked")
        with pytest.raises(InvalidStatus):
            async with a_socket(running, NEW, ssl=context):
                pass
    assert [n.times for n in running.admissions.newcomers()] == [1]
    assert not [e for e in gate.of(StationConnected) if e.station == NEW]


async def test_another_certificate_under_a_configured_name_is_remembered(dev_pki: DevPki) -> None:
    gate = FakeGate()
    context = client_context(dev_pki.stations["CP-1"])
    place = a_station("CP-2", profile=3, listener="ocpp")
    async with a_gateway(gate, place, listeners={"ocpp": dev_pki.settings("ocpp")}) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with a_socket(running, "CP-2", ssl=context):
                pass
        assert status_of(refused)[0] == 403
        assert [(n.station, n.serial) for n in running.admissions.newcomers()] == [("CP-2", "SN-CP-1")]


async def test_where_nobody_proves_anything_nobody_is_remembered() -> None:
    async with a_gateway(FakeGate(), a_station()) as running:
        with pytest.raises(InvalidStatus):
            async with a_socket(running, NEW):
                pass
        assert running.admissions.newcomers() == []
