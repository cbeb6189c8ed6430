"""A gateway in a process of its own between our DSO and stations written by others, over mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.domain.measurement import Quantity
from gateway.infra.clock_system import SystemClock
from gateway.infra.evidence_read import EvidenceReader
from gateway.testing.cast import Dso
from gateway.testing.story import Forecast
from tests.interop.peers_stations import ForeignStation
from tests.interop.whole_site import FLEET, PATIENCE_S, PLENTY_W, Fleet, a_foreign_plan, consequence, fingerprint
from tests.support.gateway import Depot, from_now
from tests.support.ocpp import until

CUT_W, CUT_A = 6_000, 7.9

pytestmark = [pytest.mark.interop, pytest.mark.anyio]


@asynccontextmanager
async def our_dso(depot: Depot) -> AsyncIterator[Dso]:
    """The simulated DSO, where the gateway may call it."""
    dso = Dso(depot.stage, depot.plan.group, SystemClock())
    host = await dso.start()
    depot.edit(lambda document: document["peers"][0].update(url_hosts=[host]))
    try:
        yield dso
    finally:
        await dso.stop()


@pytest.mark.parametrize(("kind", "version"), FLEET)
async def test_the_dsos_cut_reaches_a_foreign_station_and_the_log_says_how(kind: str, version: str, tmp_path: Path):
    fleet = [(kind, version)]
    depot = Depot.build(tmp_path / "depot", a_foreign_plan(fleet), "127.0.0.1:1")
    began = datetime.now(UTC)
    async with our_dso(depot) as dso, depot.running() as (child, ports):
        await dso.join(f"https://127.0.0.1:{ports['grid']}")
        await dso.forecast(Forecast.LIMIT, from_now(PLENTY_W))
        async with Fleet.running(depot, ports["ocpp"], fleet) as there:
            await there.full()
            request = await dso.forecast(Forecast.LIMIT, from_now(CUT_W))
            await until(lambda: there.amperes() == [CUT_A])
            await there.draw(5_900)
            there.stations[0].do("stop")
            await there.stations[0].heard("stopped")
            there.check_content()
        await child.stop()
    depot.verify()
    station = depot.plan.stations[0]
    cut = consequence(depot, request)
    assert cut.actor["cert_sha256"] == fingerprint(depot.stage.pki.parties["dso"])
    assert [entry.body["tightens"] for entry in cut.sent.values()] == [True]
    assert cut.watts() <= CUT_W
    assert [entry.subject["station"] for entry in cut.acknowledged.values()] == [station.id]
    (connected,) = depot.entries("station.connected")
    assert (connected.subject["station"], connected.body["listener"]) == (station.id, "ocpp")
    (started,) = depot.entries("session.started")
    assert started.document["actor"]["cert_sha256"] == fingerprint(depot.stage.pki.stations[station.id])
    assert len(depot.entries("session.outcome")) == 1
    assert depot.entries("signal.refused") == depot.entries("setpoint.failed") == []
    with EvidenceReader(depot.stage.store) as reader:
        samples = reader.samples(station.node, Quantity.P, began, datetime.now(UTC) + timedelta(seconds=1))
    assert [sample.value for sample in samples] == [5_900]


async def test_foreign_stations_with_each_others_certificate_are_turned_away_on_record(tmp_path: Path):
    fleet = [("ocpp", "1.6"), ("rpc", "2.0.1")]
    depot = Depot.build(tmp_path / "depot", a_foreign_plan(fleet), "127.0.0.1:1")
    wrong = dict(zip(("CP-1", "CP-2"), (depot.stage.pki.stations[name] for name in ("CP-2", "CP-1")), strict=True))
    async with depot.running() as (child, ports):
        url = f"wss://127.0.0.1:{ports['ocpp']}"
        for (kind, version), (name, identity) in zip(fleet, wrong.items(), strict=True):
            serial = f"SN-{name}"
            program = ForeignStation.running(kind, url, name, version=version, serial=serial, identity=identity)
            async with program as station:
                await until(lambda station=station: station.ended)
            assert station.of("booted") == []
        await child.stop()
    refused = {e.subject["peer"]: e for e in depot.entries("signal.refused")}
    for name, identity in wrong.items():
        assert refused[name].document["reason"] == "403"
        assert refused[name].document["actor"]["cert_sha256"] == fingerprint(identity)
    assert depot.entries("station.connected") == []


@pytest.mark.parametrize(("kind", "version"), FLEET[:1])
async def test_a_foreign_station_whose_clock_is_behind_is_left_its_share(kind: str, version: str, tmp_path: Path):
    fleet = [(kind, version)]
    depot = Depot.build(tmp_path / "depot", a_foreign_plan(fleet), "127.0.0.1:1")
    async with our_dso(depot) as dso, depot.running() as (child, ports):
        await dso.join(f"https://127.0.0.1:{ports['grid']}")
        await dso.forecast(Forecast.LIMIT, from_now(PLENTY_W))
        async with Fleet.running(depot, ports["ocpp"], fleet, ahead=-120) as there:
            await there.full()
            async with asyncio.timeout(PATIENCE_S):
                while not depot.entries("device.clock_wrong"):
                    await there.draw(20_000)
            (station,) = there.stations
            share = next(p["limits"][0][1] for p in station.of("profile") if p["purpose"] == "TxDefaultProfile")
            # One period without any time in it means the same by both clocks.
            await until(lambda: there.last_limits() == [[[0, share]]])
            there.check_content()
        await child.stop()
    depot.verify()
    (wrong,) = depot.entries("device.clock_wrong")
    (seen,) = depot.entries("station.clock")
    assert wrong.document["cause"] == [seen.id]
    assert seen.body["ahead_s"] == pytest.approx(-120, abs=2)
    assert seen.document["raw"]["sha256"]
