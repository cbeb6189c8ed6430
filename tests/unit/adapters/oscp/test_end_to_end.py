"""The adapter behind its real listener with mutual TLS, a simulated DSO on the other side."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.oscp.peer import ForecastBlock, SimulatedDso
from gateway.domain.effects import OutboxItem
from gateway.domain.errors import ProtocolViolation, TlsFailure
from gateway.domain.events import EnvelopeRevised, SourceHeard
from gateway.domain.ids import PeerId
from gateway.pki.dev import DevPki
from tests.unit.adapters.oscp.fakes import ONBOARDING, RealClock
from tests.unit.adapters.oscp.sites import a_site

pytestmark = pytest.mark.anyio


async def test_a_dso_registers_shakes_hands_beats_and_limits_over_mutual_tls(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        dso.fail_next("register", 503)
        await dso.register()
        await dso.handshake()
        await dso.heartbeat()
        await dso.wait_for("heartbeat")
        start = datetime.now(UTC)
        request_id = await dso.forecast(
            "DEPOT-7", "CONSUMPTION", [ForecastBlock(start, start + timedelta(hours=1), 40_000)]
        )
    revised = gate.events[-1]
    assert isinstance(revised, EnvelopeRevised)
    assert (revised.correlation, revised.blocks[0].value) == (request_id, 40_000)
    assert revised.message.actor.cert_sha256
    assert isinstance(gate.noted[0], SourceHeard)


async def test_facts_reach_the_dso_with_their_correlation(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, dso, _):
        await dso.register()
        await dso.handshake()
        values = [{"quantity": "energy_import_wh", "value": 1_234, "measured_at": "2026-03-01T15:00:00Z"}]
        block = {"start": "2026-03-01T16:00:00Z", "end": "2026-03-01T17:00:00Z", "value": 9_000, "dimension": "sum_w"}
        measured = OutboxItem("m-1", PeerId("dso"), "measurements", {"node": "main", "values": values})
        failed = OutboxItem("c-1", PeerId("dso"), "compliance_error", {"message": "m", "blocks": [block]}, "q-7")
        await gate.submit((), outbox=(measured, failed))
        report = await dso.wait_for("update_group_measurements")
        excuse = await dso.wait_for("group_capacity_compliance_error")
    assert (report.request_id, report.body["group_id"]) == ("m-1", "DEPOT-7")
    assert report.body["measurements"][0]["value"] == 1_234
    assert (excuse.correlation, excuse.body["forecasted_blocks"][0]["capacity"]) == ("q-7", 9_000)


async def test_another_partys_certificate_does_not_open_the_dsos_account(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, _dso, listener):
        thief = SimulatedDso(
            fp_url=f"https://127.0.0.1:{listener.port}",
            token=ONBOARDING,
            clock=RealClock(),
            client=dev_pki.parties["aggregator"],
        )
        await thief.start()
        with pytest.raises(ProtocolViolation, match="403"):
            await thief.register()
        await thief.stop()
    assert gate.events == []


async def test_a_dso_that_shows_no_certificate_reaches_no_route(dev_pki: DevPki, tmp_path: Path) -> None:
    async with a_site(dev_pki, tmp_path) as (gate, _, listener):
        anonymous = SimulatedDso(
            fp_url=f"https://127.0.0.1:{listener.port}",
            token=ONBOARDING,
            clock=RealClock(),
            client=replace(dev_pki.parties["dso"], certificate=None, key=None),
        )
        await anonymous.start()
        with pytest.raises(TlsFailure):
            await anonymous.register()
        await anonymous.stop()
    assert gate.noted == []
